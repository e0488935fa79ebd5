#!/usr/bin/env bash
# run.sh check | full: every test, each part with a log of its own under build/test-logs, a table at the end and one
# closing line `N passed, N failed`. `check` needs nothing but the repository (and PyPI for ONNX Runtime); `full` adds
# what lies in $SDX_SHARED (default ../shared); SDX_ONLY_SHARED=1 leaves out the parts that `check` has just run.
set -u
cd "$(dirname "$0")/.." || exit 3
level=${1:-check}
shared=${SDX_SHARED:-../shared}
data=tests/data
logs=build/test-logs
jobs=$(nproc)
mkdir -p "$logs"
rows=() passed=0 failed=0
export SDX_TEST_DATA=$data SDX_ROWS=$PWD/$logs/rows

# part NAME COMMAND...: counts what its last `N passed, N failed` says; a part that prints none has failed.
part() {
    local name=$1 log=$logs/$1.log start=$SECONDS code line p f
    shift
    printf '%-28s' "$name" >&2
    "$@" >"$log" 2>&1 </dev/null
    code=$?
    line=$(grep -aoE '[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
    p=${line%% *} f=${line#*, } f=${f%% *}
    if [ "$line" = "0 passed, 0 failed" ]; then
        f=1 line="nothing was tested"
    elif [ -z "$line" ] || { [ "$code" != 0 ] && [ "$f" = 0 ]; }; then
        p=${p:-0} f=$((${f:-0} + 1))
        line="exit code $code"
    fi
    passed=$((passed + p)) failed=$((failed + f))
    rows+=("$(printf '%-28s %6d passed %4d failed %5d s' "$name" "$p" "$f" $((SECONDS - start)))")
    echo "$line" >&2
    if [ "$f" != 0 ]; then
        echo "  see $log:" >&2
        { grep -aE 'FAIL|rror|MISS|:[EF]:' "$log" || tail -n 12 "$log"; } | head -n 12 | sed 's/^/  | /' >&2
    fi
}
# must NAME COMMAND...: one thing that has to work, counted as one test.
must() {
    part "$1" bash -c '"$@" && echo "1 passed, 0 failed" || { echo "0 passed, 1 failed"; exit 1; }' _ "${@:2}"
}
build() { must "build-$1${2:+-$2}" make -s --no-print-directory -j"$jobs" MODE="$1" ${2:+CC="$2"} test-programs ${3:-}; }
sdx=build/release/sardonyx

# Attention that quantizes its own input, of texts that are padded.
int8_attention() {
    local model=$data/zoo/bert-model/torchscript-op14.ort-optimized.onnx
    $sdx quantize --model_path "$model" --output "$logs/int8.onnx" &&
        build/asan/sardonyx bench "$logs/int8.onnx" --skip_padding --lengths 3,9 --runs 1 &&
        build/asan/sardonyx bench "$logs/int8.onnx" --shape 1x4 --runs 1 && echo "1 passed, 0 failed"
}

# Beside ONNX Runtime, and what is said where there is none.
bench_vs_ort() {
    local model=$data/zoo/bert-model/torchscript-op14.onnx
    SARDONYX_PYTHON=build/venv/bin/python $sdx bench "$model" --vs ort --shape 1x8 --lengths 3,9 --runs 2 --json |
        grep -cE '("gflops": [0-9.]+, "peak_share": ([0-9.]+|null), "vs": .*"ratio": [0-9.]+.*){2}' &&
        SARDONYX_PYTHON=/nowhere $sdx bench "$model" --vs ort 2>&1 | grep 'runs /nowhere with the package onnxruntime' &&
        $sdx bench "$model" --vs torch 2>&1 | grep '^sardonyx: --vs knows ort' &&
        echo "1 passed, 0 failed"
}

common() {
    part lint sh tools/lint.sh build/release
    part unit build/release/unit
    part kcheck build/release/kcheck
    for isa in scalar avx2; do part "unit-$isa" env SARDONYX_ISA=$isa build/release/unit; done
    part zoo build/release/zoo_check $data/zoo
    part zoo-as-spelled build/release/zoo_check $data/zoo --no-optimize
    part zoo-every-isa build/release/zoo_check $data/zoo --every-isa --threads 2
    part same-bytes bash tests/models/same_bytes.sh $sdx build/release/zoo_check $data/zoo
    part zoo-1-thread-openblas env SARDONYX_GEMM=openblas build/release/zoo_check $data/zoo --threads 1
    part cli bash tests/cli/run.sh $sdx
    part readme python3 tests/cli/readme_check.py "${sdx%/*}"
    part hub python3 tests/cli/hub_check.py $sdx $data/zoo/bert-model/checkpoint
    must operators-page sh -c "$sdx ops --markdown | cmp - docs/operators.md"
    must ort-environment bash tools/venv.sh
    part corpus build/venv/bin/python tests/cli/corpus_check.py $sdx $data/zoo
    part tasks build/venv/bin/python tests/models/tasks_check.py $sdx $data/zoo
    part bench-vs-ort bench_vs_ort
    part ort build/venv/bin/python tests/models/ort_check.py $sdx $data/zoo
    part quantize build/venv/bin/python tests/models/quantize_check.py $sdx $data/zoo --forms ours,channel,qdq,static,4-bit
    part hostile build/venv/bin/python tests/onnx/hostile.py $sdx
    part std build/venv/bin/python -W ignore tests/models/std_check.py $sdx $data/zoo
    part invariance bash tests/models/invariance.sh $sdx $data/zoo/bert-model/checkpoint
    part explain build/venv/bin/python tests/models/explain_check.py $sdx $data/zoo/bert-mlm/torchscript-op14.onnx
    for target in $(ls tests/fuzz/fuzz_*.c); do
        name=$(basename "$target" .c)
        part "$name" build/release/"$name" tests/fuzz/corpus/"${name#fuzz_}"
    done
    must static make --no-print-directory static
    must install bash tests/cli/install.sh

    build asan
    rm -f "$SDX_ROWS"
    export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
    export LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp:print_suppressions=0
    part asan-unit build/asan/unit
    part asan-kcheck build/asan/kcheck
    part asan-zoo build/asan/zoo_check $data/zoo
    part asan-alloc build/asan/alloc_check $data/zoo/bert-mlm/torchscript-op14.onnx \
        $data/zoo/bert-splade/torchscript-op14.onnx $data/zoo/bert-model/torchscript-op14.ort-optimized.onnx
    part asan-cli bash tests/cli/run.sh build/asan/sardonyx
    part asan-int8 int8_attention
    part asan-corpus build/venv/bin/python tests/cli/corpus_check.py build/asan/sardonyx $data/zoo --calm
    part asan-tasks build/venv/bin/python tests/models/tasks_check.py build/asan/sardonyx $data/zoo
    part asan-hostile build/venv/bin/python tests/onnx/hostile.py build/asan/sardonyx
    part asan-hub python3 tests/cli/hub_check.py build/asan/sardonyx $data/zoo/bert-model/checkpoint
    for target in $(ls tests/fuzz/fuzz_*.c); do
        name=$(basename "$target" .c)
        part "asan-$name" build/asan/"$name" tests/fuzz/corpus/"${name#fuzz_}"
    done

}

build release '' lib
[ "${SDX_ONLY_SHARED:-}" ] || common
if [ "$level" = full ]; then
    if [ ! -d "$shared/zoo" ]; then
        echo "run.sh: $shared/zoo is missing; SDX_SHARED names another place" >&2
        rows+=("shared data missing") failed=$((failed + 1))
    else
        must ort-environment bash tools/venv.sh
        part full-zoo build/release/zoo_check "$shared/zoo" --every-isa --threads 2 --expected tests/models/zoo_expected.tsv
        part full-zoo-as-spelled build/release/zoo_check "$shared/zoo" --no-optimize --expected tests/models/zoo_expected.tsv
        part full-node-tests bash tests/onnx/node_tests.sh $sdx "$shared"
        part full-guide bash tests/models/guide.sh $sdx "$shared/guide"
        part full-fusion build/venv/bin/python tests/models/fusion_check.py $sdx "$shared"
        part full-ort-fusions build/venv/bin/python tests/models/ort_fusions_check.py $sdx "$shared/ort_models"
        part full-tokens bash tests/models/tokens.sh $sdx "$shared"
        part full-tokenizers build/venv/bin/python tests/models/tokenizer_check.py $sdx $data/zoo "$shared/zoo"
        part full-ort build/venv/bin/python tests/models/ort_check.py $sdx "$shared/zoo"
        part full-quantize build/venv/bin/python tests/models/quantize_check.py $sdx "$shared/zoo" \
            --expected tests/models/quantize_expected.tsv
        part full-generate python3 tests/models/generate_check.py $sdx "$shared/zoo"
        part full-ort-models build/venv/bin/python tests/models/ort_models_check.py $sdx "$shared/ort_models"
        part full-merged build/venv/bin/python tests/models/merged_check.py $sdx "$shared/zoo"
        part full-html bash tests/models/html_check.sh $sdx build/venv/bin/python "$shared/guide/bert-12l-sdpa/model.onnx"
        must minilm-checkpoint sh tools/fetch_minilm.sh
        part full-invariance bash tests/models/invariance.sh $sdx "$(sh tools/fetch_minilm.sh)"
        part full-minilm bash tests/models/minilm.sh $sdx "$shared/minilm"
        build asan
        part full-alloc build/asan/alloc_check $(find "$shared/zoo" -name '*.onnx' | sort)
        part full-row-cases build/venv/bin/python tests/onnx/row_cases.py build/asan/sardonyx "$shared/ort_models"
        part full-asan-ort-models build/venv/bin/python tests/models/ort_models_check.py build/asan/sardonyx \
            "$shared/ort_models"
        build/asan/sardonyx test build/node_tests >"$logs/asan-node-tests.log" 2>&1 # for its rows
        part full-rows python3 tests/onnx/rows.py $sdx "$SDX_ROWS"
        build tsan
        part tsan-unit build/tsan/unit
        build release clang
        part clang-unit build/release-clang/unit
        part kcheck-aarch64 make -s --no-print-directory kcheck-aarch64
    fi
fi

echo; printf '%s\n' "${rows[@]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
