#!/usr/bin/env bash
# run.sh SARDONYX: what a person sees: stdout, stderr and exit code of every verb, on good input and on bad.
set -u
sdx=$(realpath "$1")
cd "$(dirname "$0")/../.." || exit 3
zoo=tests/data/zoo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# says CODE 'regexp for stdout and stderr together, empty: anything' COMMAND...
says() {
    local code=$1 pattern=$2 got
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    if [ "$got" = "$code" ] && { cat "$work/out" "$work/err"; [ -n "$pattern" ] || echo; } | grep -qE -- "$pattern"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED ${*##*/}: exit $got (expected $code), expected /$pattern/, got:"
        head -c 600 "$work/out" "$work/err"
    fi
}
# refuses 'regexp' COMMAND...: exit 2, one sentence on stderr, nothing on stdout.
refuses() {
    says 2 "$@"
    if [ -s "$work/out" ] || [ "$(wc -l <"$work/err")" != 1 ]; then
        failed=$((failed + 1))
        echo "FAILED ${*:2}: not exactly one sentence on stderr"
    fi
}

# ---- help and usage
says 0 'usage: sardonyx VERB' "$sdx" --help
says 0 '^sardonyx 0' "$sdx" --version
verbs=$("$sdx" --help | sed -n 's/^  \([a-z]*\) .*/\1/p')
for verb in $verbs; do
    says 0 "^example:" "$sdx" $verb --help
    refuses "no option --nonsense" "$sdx" $verb --nonsense
done
refuses 'there is no verb "fly"' "$sdx" fly
refuses 'takes a whole number' "$sdx" embed --model_name x --threads many
refuses 'needs a value' "$sdx" optimize --model_path
refuses 'ops does not know what to do with "x"' "$sdx" ops x
says 0 'used: scalar$' env SARDONYX_ISA=scalar "$sdx" --version
refuses 'unknown instruction set|no instruction set|ISA' "$sdx" ops --isa z80

# ---- the pipeline of the guide, on a small checkpoint
model=$work/models/checkpoint.onnx
says 0 'L1 difference: [0-9.e-]+' "$sdx" convert --model_name $zoo/bert-model/checkpoint --output_dir "$work/models"
says 0 '^errno$' tail -n 1 "$work/models/checkpoint-vocab.txt"
says 1 'above the threshold' "$sdx" convert --model-name $zoo/bert-model/checkpoint --output-dir "$work/again" --threshold=0
says 0 'Attention: 2' "$sdx" optimize --model_path "$model" --stats
says 0 'operators in int8' "$sdx" quantize --model_path "$work/models/checkpoint-optimized.onnx" --per_channel
optimized=$work/models/checkpoint-optimized.onnx
printf '%s\n' 'what is AI?' 'a second text' 'and a third one, which is longer' > "$work/calibration.txt"
says 0 '1 - cosine  ms saved' "$sdx" quantize --model_path "$optimized" --output "$work/q.onnx" --report
says 0 'left in float; ' "$sdx" quantize --model_path "$optimized" --output "$work/q.onnx" --target 'cosine>=0.99999'
says 0 'operators in int8' "$sdx" quantize --model_path "$optimized" --output "$work/q.onnx" --static --format qdq \
    --calibration "$work/calibration.txt" --tokenizer $zoo/bert-model/checkpoint
says 0 'operators in int4' "$sdx" quantize --model_path "$optimized" --output "$work/q.onnx" --weight_only 4

# ---- a folder of encoder and decoders, in 8 bits as before
t5=$work/t5
cat > "$work/t5.json" <<'END'
{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 2, "vocab_size": 1600,
 "feed_forward_proj": "relu", "num_decoder_layers": 2, "is_encoder_decoder": true, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
 "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6}
END
"${sdx%sardonyx}make_checkpoint" "$work/t5.json" "$t5" && cp $zoo/t5/checkpoint/*.json "$t5"
says 0 'Wrote 4 graphs' "$sdx" convert --model_name "$t5" --output_dir "$work/t5-graphs" --merged
says 0 'decoder_model_merged.onnx: [1-9]' "$sdx" quantize --model_path "$work/t5-graphs/t5" --output "$work/t5-8bit"
says 0 '"ids"' "$sdx" generate --model_name "$work/t5-8bit" --text 'what is AI?' --max_new_tokens 5 --json
rm "$work"/t5-8bit/decoder_model.onnx "$work"/t5-8bit/decoder_with_past_model.onnx
says 0 '"ids"' "$sdx" generate --model_name "$work/t5-8bit" --text 'what is AI?' --max_new_tokens 5 --json

refuses 'cosine>=X or top10>=X' "$sdx" quantize --model_path "$optimized" --output "$work/q.onnx" --target 'accuracy>=1'
refuses 'no ten neighbours' "$sdx" quantize --model_path "$optimized" --output "$work/q.onnx" --target 'top10>=0.9'
refuses 'static needs --calibration' "$sdx" quantize --model_path "$optimized" --output "$work/q.onnx" --static
refuses 'texts need --tokenizer' "$sdx" quantize --model_path "$optimized" --static --calibration "$work/calibration.txt"
says 0 'com.microsoft' "$sdx" inspect "$work/models/checkpoint-optimized-8bit.onnx"
says 0 '"ir_version"' "$sdx" inspect "$model" --json
says 0 'n0_[0-9]+ -> n0_[0-9]+ \[label="float32\[batch_size,sequence,64\]"\]' "$sdx" inspect "$model" --dot
says 0 'com.microsoft::Attention|sardonyx::PackedAttention' "$sdx" inspect "$model" --stage passes
says 0 'EmbedLayerNormalization +float32\[2,9,64\] +buffer [0-9]+ \+4608' "$sdx" inspect "$optimized" --stage plan --shape 2x9
says 0 '"buffer_bytes": [1-9]' "$sdx" inspect "$model" --stage plan --json
refuses 'graph, passes or plan' "$sdx" inspect "$model" --stage planned
refuses 'a shape is BxS' "$sdx" inspect "$model" --stage plan --shape 2
refuses 'neither --dot nor --html' "$sdx" inspect "$model" --stage plan --dot
says 0 'last_hidden_state' "$sdx" run --model_path "$model" --model_name $zoo/bert-model/checkpoint --text 'what is AI?'
says 0 'float32\[1,[0-9]+,64\]' "$sdx" run "$model" --output_dir "$work/npy" --input \
    input_ids=$zoo/bert-model/case_0/input_input_ids.npy attention_mask=$zoo/bert-model/case_0/input_attention_mask.npy \
    token_type_ids=$zoo/bert-model/case_0/input_token_type_ids.npy
says 0 'NUMPY' head -c 6 "$work/npy/last_hidden_state.npy"
says 0 '"name": "last_hidden_state", "dtype": "float32", "shape": \[1, 6, 64\], "non_zero": [0-9]+, "values": \[-?0[.]' \
    "$sdx" run --model_path "$model" --model_name $zoo/bert-model/checkpoint --text 'what is AI?' --json
says 0 '"passed": 0, "failed": 1' sh -c "mkdir -p '$work/cases/a' && cp '$model' '$work/cases/a/model.onnx' && ! '$sdx' test '$work/cases' --json"
says 1 'FAILED a: .*no such folder' "$sdx" test "$work/cases"
refuses 'nowhere.tsv: cannot open' "$sdx" test "$work/cases" --tolerances nowhere.tsv
says 0 'MatMul' "$sdx" run "$model" --profile --input input_ids=$zoo/bert-model/case_0/input_input_ids.npy \
    attention_mask=$zoo/bert-model/case_0/input_attention_mask.npy token_type_ids=$zoo/bert-model/case_0/input_token_type_ids.npy
says 0 '"ids":\[' "$sdx" tokenize --model_name $zoo/bert-model/checkpoint --text 'what is AI?'
says 0 '"attention_mask":\[.*"overflowing":\[' "$sdx" tokenize --model_name $zoo/bert-model/checkpoint --as_configured \
    --text_lines --input README.md
says 0 '"embedding":\[' "$sdx" embed --model_path "$model" --tokenizer $zoo/bert-model/checkpoint --text 'what is AI?'
says 0 '"embedding":\[' "$sdx" embed --model_name $zoo/bert-model/checkpoint --text 'straight from the checkpoint'
# softmax of the golden logits, straight from a pickled checkpoint
says 0 '^[01][.][0-9]+ LABEL_4' "${sdx%/*}/answer" classify $zoo/bert-classify-bin/checkpoint 'what is AI?'
says 0 '"labels":\[\{"label":"LABEL_0","score":0.44813[0-9]*' "$sdx" classify --model_name $zoo/bert-classify-bin/checkpoint --text 'what is AI?' --top_k 1
says 0 'L1 difference' "$sdx" convert --model_name $zoo/bert-splade/checkpoint --output_dir "$work/splade" --splade
says 0 '"vector":\{"' "$sdx" encode --model_path "$work/splade/checkpoint.onnx" --tokenizer $zoo/bert-splade/checkpoint --text 'what is AI?'
printf '{"id": "a", "contents": "what is AI?"}\n{"id": "b", "text": "the second text"}\n' > "$work/docs.jsonl"
says 0 '' "$sdx" encode --model_path "$work/splade/checkpoint.onnx" --tokenizer $zoo/bert-splade/checkpoint \
    --input "$work/docs.jsonl" --output "$work/impacts.jsonl" --format anserini
says 0 '^\{"id":"b","contents":"the second text","vector":\{.*:[0-9]+[,}]' cat "$work/impacts.jsonl"
says 0 '^ai.onnx +MatMul' "$sdx" ops
says 0 '"median_ms": [0-9.]+, "p90_ms": [0-9.]+, "gflops": [0-9.]+, "peak_share": ([0-9.]+|null)}' "$sdx" bench "$model" --shape 1x8 2x16 --lengths 3,9,5 --runs 2 --json
says 0 '"precision": "fp16"' "$sdx" bench "$model" --shape 1x8 --runs 1 --precision fp16 --json
refuses 'precision is fp32, bf16, fp16 or auto, not "fp8"' "$sdx" bench "$model" --precision fp8
says 0 '^ready .*[0-9.]+' bash -c 'printf "1x8\n3,9,5\n" | "$@" --repeat_on_stdin | tr "\n" " "' _ "$sdx" bench "$model"
says 2 'a line is BxS' bash -c 'echo 8x | "$@" --repeat_on_stdin 2>&1' _ "$sdx" bench "$model"
refuses 'a shape is BxS' "$sdx" bench "$model" --shape 8
says 0 '^ready [0-9.]+ [0-9.]+ [0-9.]+ $' sh -c "printf '1x8\\nload\\n3,5\\n' | $sdx bench $model --repeat-on-stdin | tr '\\n' ' '"

# ---- more than 100 MB: a bar on a terminal, and nothing but results anywhere else
cat > "$work/large.json" <<'end'
{"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 512, "num_hidden_layers": 1, "num_attention_heads": 8,
 "intermediate_size": 512, "vocab_size": 51200, "max_position_embeddings": 64}
end
"${sdx%/*}/make_checkpoint" "$work/large.json" "$work/large"
large="$sdx convert --model_name $work/large --output_dir $work"
says 0 '\[#{40}\] 100% of 112 MB' script -qec "$large" /dev/null
says 0 'L1 difference' $large
says 0 '^0$' sh -c "wc -c < '$work/err'"
rm -r "$work/large" "$work/large.onnx"

# ---- a masked-LM graph gives the same sparse vectors as the SPLADE graph
"$sdx" convert --model_name $zoo/bert-splade/checkpoint --output_dir "$work/mlm" >/dev/null
for graph in splade mlm; do
    "$sdx" encode --model_path "$work/$graph/checkpoint.onnx" --tokenizer $zoo/bert-splade/checkpoint --input "$work/docs.jsonl" \
        --format anserini --output "$work/$graph.jsonl"
done
says 0 '' cmp "$work/splade.jsonl" "$work/mlm.jsonl"

# ---- bad files: absent, truncated, flipped, wrong kind
refuses 'No such file' "$sdx" inspect "$work/absent.onnx"
refuses 'no such folder' "$sdx" convert --model_name "$work/absent"
refuses 'is a file' "$sdx" embed --model_name "$model" --text x
refuses 'is a folder' "$sdx" embed --model_name $zoo/bert-model/checkpoint --text x --output "$work"
refuses 'absent: cannot open' "$sdx" quantize --model_path "$model" --static --calibration "$work/absent"
refuses 'ids from --input' "$sdx" tokenize --model_name $zoo/bert-model/checkpoint --decode --text x
good=$zoo/bert-model/torchscript-op14.onnx size=$(stat -c %s $zoo/bert-model/torchscript-op14.onnx)
for keep in 0 1 17 1000 $((size / 2)) $((size - 1)); do
    head -c "$keep" "$good" > "$work/cut.onnx"
    refuses 'cut.onnx' "$sdx" run "$work/cut.onnx"
done
echo 'not a model' > "$work/text.onnx"
refuses 'text.onnx' "$sdx" inspect "$work/text.onnx"
for bad in config.json model.safetensors tokenizer.json; do
    rm -rf "$work/bad"
    cp -r $zoo/bert-model/checkpoint "$work/bad"
    truncate -s "$(($(stat -c %s "$work/bad/$bad") * 2 / 3))" "$work/bad/$bad"
    if [ $bad = tokenizer.json ]; then refuses "$bad" "$sdx" tokenize --model_name "$work/bad" --text x
    else refuses "$bad" "$sdx" convert --model_name "$work/bad" --output_dir "$work/nothing"; fi
done
says 0 '^0$' sh -c "find '$work/nothing' -type f 2>/dev/null | wc -l"

# ---- a flipped bit anywhere: any clean outcome, never a crash, never a partial file
flip() { # FILE OFFSET
    local byte
    byte=$(od -An -tu1 -j"$2" -N1 "$1")
    printf "\\x$(printf %02x $((byte ^ (1 << ($2 % 8)))))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
outcome() { # COMMAND...: exit 0, 1 or 2
    "$@" >"$work/out" 2>"$work/err" </dev/null
    local got=$?
    if [ $got -le 2 ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED ${*##*/}: exit $got"
        head -c 1500 "$work/err"
    fi
}
RANDOM=7
for i in $(seq 12); do
    cp "$good" "$work/flip.onnx"
    flip "$work/flip.onnx" $(((RANDOM * 32768 + RANDOM) % 24000))
    outcome "$sdx" optimize --model_path "$work/flip.onnx" --output "$work/flipped.onnx"
    for file in config.json model.safetensors tokenizer.json; do
        rm -rf "$work/bad"
        cp -r $zoo/bert-model/checkpoint "$work/bad"
        flip "$work/bad/$file" $(((RANDOM * 32768 + RANDOM) % $(stat -c %s "$work/bad/$file") % 8000))
        [ $file != tokenizer.json ] || outcome "$sdx" tokenize --model_name "$work/bad" --text "some text"
        [ $file = tokenizer.json ] || outcome "$sdx" convert --model_name "$work/bad" --output_dir "$work/flipped"
    done
done
says 0 '^0$' sh -c "find '$work' -name '*.tmp-*' | wc -l"

# ---- wrong inputs
ids=$zoo/bert-model/case_0/input_input_ids.npy
refuses 'no_such' "$sdx" run "$model" --input no_such=$ids
refuses 'attention_mask' "$sdx" run "$model" --input input_ids=$ids
refuses 'input_ids.*int64.*float32' "$sdx" run "$model" --input input_ids=$zoo/bert-model/case_0/output_pooler_output.npy
refuses 'input "attention_mask": dimension 0 .* is 3, but it is 1' "$sdx" run "$model" --input input_ids=$ids attention_mask=$zoo/bert-model/case_1/input_attention_mask.npy \
    token_type_ids=$ids
refuses 'NAME=FILE' "$sdx" run "$model" --input $ids
refuses 'config.json|model_type' "$sdx" convert --model_name tests/data --output_dir "$work/none"
refuses 'nothing to quantize|no node' "$sdx" quantize --model_path "$model" --nodes_to_exclude nosuchnode
printf '{"id": 1}\n' > "$work/bad.jsonl"
refuses 'line 1' "$sdx" embed --model_path "$model" --tokenizer $zoo/bert-model/checkpoint --input "$work/bad.jsonl" --output "$work/never.npy"
refuses 'head' "$sdx" optimize --model_path "$model" --num_heads 3 --output "$work/never.onnx"
says 0 '^0$' sh -c "ls '$work' | grep -c never || true"

# ---- what the program is linked to
if [ "${sdx%asan/sardonyx}" = "$sdx" ]; then
allowed='^(linux-vdso|lib(c|m|gomp|protobuf-c|openblas|jansson|utf8proc|pcre2-8|z|sndfile|FLAC|vorbis|vorbisenc|opus|ogg|mp3lame|mpg123|gfortran|quadmath|gcc_s|pthread)\.so|/lib)'
    says 0 '^0$' sh -c "ldd '$sdx' | awk '{print \$1}' | grep -vcE '$allowed'; true"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
