#!/usr/bin/env bash
# minilm.sh SARDONYX MINILM: the real all-MiniLM-L6-v2 against float64 embeddings; threads and batch neighbours change
# no byte; our fp32, optimized and int8 files agree with ONNX Runtime.
set -u
here=$(dirname "$0")
sdx=$(realpath "$1") minilm=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
checkpoint=$(sh "$here/../../tools/fetch_minilm.sh") || { echo "0 passed, 1 failed"; exit 1; }
passed=0 failed=0
ok() { if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $2"; fi; }
embed() { "$sdx" embed --tokenizer "$checkpoint" --input "$minilm/texts.txt" --output "$work/$1.npy" "${@:2}"; }

"$sdx" convert --model_name "$checkpoint" --output_dir "$work"
ok $? convert
fp32=$work/all-MiniLM-L6-v2.onnx
"$sdx" optimize --model_path "$fp32" --stats
ok $? optimize
"$sdx" quantize --model_path "$fp32" --per_channel --output "$work/int8.onnx"
ok $? quantize
"$sdx" quantize --model_path "$work/all-MiniLM-L6-v2-optimized.onnx" --output "$work/accurate.onnx"
ok $? "quantize, our own recipe"

embed fp32 --model_path "$fp32"; ok $? "embed fp32"
embed one --model_path "$fp32" --threads 1; ok $? "embed, 1 thread"
embed four --model_path "$fp32" --threads 4; ok $? "embed, 4 threads"
embed alone --model_path "$fp32" --batch_tokens 1; ok $? "embed, one by one"
embed few --model_path "$fp32" --batch_tokens 700; ok $? "embed, small batches"
embed optimized --model_path "$work/all-MiniLM-L6-v2-optimized.onnx"; ok $? "embed, optimized file"
embed checkpoint --model_path "$checkpoint"; ok $? "embed straight from the checkpoint"
embed int8 --model_path "$work/int8.onnx"; ok $? "embed int8"
embed accurate --model_path "$work/accurate.onnx"; ok $? "embed accurate int8"
embed accurate_alone --model_path "$work/accurate.onnx" --batch_tokens 1 --threads 1; ok $? "embed accurate int8, one by one"
cmp "$work/accurate.npy" "$work/accurate_alone.npy"
ok $? "accurate int8 depends on its neighbours"
for same in one four alone few optimized checkpoint; do
    cmp "$work/fp32.npy" "$work/$same.npy"
    ok $? "$same: other bytes than the default run"
done
"$here/../../build/venv/bin/python" "$here/minilm_check.py" "$work" "$minilm/embeddings_float64.npy" "$checkpoint" > "$work/log"
cat "$work/log"
line=$(tail -n 1 "$work/log")
[[ $line == *passed* ]] || line="0 passed, 1 failed"
passed=$((passed + ${line%% *})) line=${line#*, } failed=$((failed + ${line%% *}))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
