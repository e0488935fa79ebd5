#!/usr/bin/env bash
# same_bytes.sh SARDONYX ZOO_CHECK ZOO: one SHA-256 of a model's vectors over instruction sets x threads x who shares a
# batch (alone, padded next to longer texts, all at once), weights in float16 too; then every quantized form's outputs
# over instruction sets and threads. Per-tensor dynamic scales see the whole batch, as the standard has it, so only "accurate" is batched.
set -u
sdx=$1 check=$2 zoo=$3 passed=0 failed=0
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
model=bert-model tokenizer=$zoo/bert-model/checkpoint

words=(what is a vector of text and why would anyone want more than one in the same batch as another longer one)
for i in $(seq 30); do
    echo "$i"$'\t'"${words[*]:$((i * 7 % 11)):$((i * 5 % 9 + 1))} ${words[*]:0:$((i * i % 21))}"
done > "$work/texts.tsv"

"$sdx" convert --model_name "$tokenizer" --output_dir "$work" >/dev/null &&
    "$sdx" optimize --model_path "$work/checkpoint.onnx" >/dev/null &&
    "$sdx" quantize --model_path "$work/checkpoint-optimized.onnx" --preset accurate >/dev/null || exit 1

for graph in checkpoint checkpoint-optimized checkpoint-optimized-8bit 'checkpoint-optimized --precision fp16'; do
    read -r file options <<< "$graph"
    first=
    for isa in scalar avx2 avxvnni avx512 avx512vnni avx512fp16 neon neon_dot; do # one that the CPU lacks runs as the best it has
        for threads in 1 2 4; do
            for tokens in 1 100 4096; do
                "$sdx" embed --model_path "$work/$file.onnx" --tokenizer "$tokenizer" --input "$work/texts.tsv" $options \
                    --output "$work/vectors.npy" --isa $isa --threads $threads --batch_tokens $tokens --quiet
                sum=$(sha256sum < "$work/vectors.npy") && first=${first:-$sum}
                if [ "$sum" ] && [ "$sum" = "$first" ]; then
                    passed=$((passed + 1))
                else
                    failed=$((failed + 1))
                    echo "FAIL $graph: other bytes with --isa $isa --threads $threads --batch_tokens $tokens"
                fi
                rm -f "$work/vectors.npy"
            done
        done
    done
    echo "$graph ${first%% *}"
done

mkdir -p "$work/zoo/$model"
cp -r "$zoo/$model"/case_* "$work/zoo/$model"
for options in '' --per_channel '--weight_type QUInt8' '--preset accurate' '--preset avx512_vnni' '--preset arm64'; do
    "$sdx" quantize --quiet --model_path "$zoo/$model/torchscript-op14.onnx" $options \
        --output "$work/zoo/$model/form${options//[ _-]/}-8bit.onnx" >/dev/null || failed=$((failed + 1))
done
"$check" "$work/zoo" --every-isa --threads 4 > "$work/log" || cat "$work/log"
read -r more _ less _ < <(tail -n 1 "$work/log")
echo "$((passed + more)) passed, $((failed + less)) failed"
[ $((failed + less)) = 0 ]
