#!/usr/bin/env bash
# demo.sh [CHECKPOINT]: the main job on a real model: convert, check, optimize, quantize, and put it to work.
# Without an argument: all-MiniLM-L6-v2, fetched once. A masked-LM (SPLADE) checkpoint shows the heaviest terms of a
# text; every other one ranks sentences for a query.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build
echo "building (build/demo-build.log) ..."
make --no-print-directory -j"$(nproc)" build/sardonyx build/release/rank > build/demo-build.log 2>&1 || {
    tail -n 20 build/demo-build.log >&2
    exit 2
}
sdx=build/sardonyx
checkpoint=${1:-$(sh tools/fetch_minilm.sh)}
[ -e "$checkpoint/config.json" ] || { echo "$checkpoint holds no config.json" >&2; exit 2; }
name=$(basename "$checkpoint")
out=build/demo/$name
mkdir -p "$out"
say() { printf '\n\033[1m$ %s\033[0m\n' "sardonyx $*"; }
sardonyx() { say "$@"; "$sdx" "$@"; }

splade=
grep -q ForMaskedLM "$checkpoint/config.json" && splade=--splade
sardonyx convert --model_name "$checkpoint" --output_dir "$out" $splade
sardonyx optimize --model_path "$out/$name.onnx" --stats
sardonyx quantize --model_path "$out/$name-optimized.onnx"
fp32=$out/$name-optimized.onnx int8=$out/$name-optimized-8bit.onnx

if [ -n "$splade" ]; then
    text="sardonyx turns a transformer into one small program that searches text"
    for model in "$fp32" "$int8"; do
        sardonyx encode --model_path "$model" --tokenizer "$checkpoint" --text "$text" --top_k 12
    done
    ls -l "$out/$name.onnx" "$fp32" "$int8" | awk '{printf "%8.1f MB  %s\n", $5 / 1e6, $9}'
else
    build/release/rank "$checkpoint" "how do search engines find the right text?" "$fp32" "$int8"
fi
printf '\nThe files are in %s.\n' "$out"
