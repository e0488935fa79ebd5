#!/usr/bin/env bash
# invariance.sh SARDONYX CHECKPOINT: one text, one answer. The checkpoint in our int8 form, raw and optimized, embeds a few texts
# with 1, 2 and 4 threads, each alone, in small batches and padded in one batch, on every instruction set: all files
# have one SHA-256.
set -u
sdx=$(realpath "$1") checkpoint=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
name=$(basename "$checkpoint")
printf '%s\n' 'what is AI?' 'A man is eating food.' 'yes' 'The quick brown fox jumps over the lazy dog, again and again and again.' \
    'Rivers rise in spring' 'Static, dynamic, or not at all: numbers need a range before they can be eight bits wide.' > "$work/texts"
"$sdx" convert --model_name "$checkpoint" --output_dir "$work" > "$work/log" 2>&1
"$sdx" optimize --model_path "$work/$name.onnx" >> "$work/log" 2>&1
for source in "$name" "$name-optimized"; do
    model=$work/$source-8bit.onnx first=
    "$sdx" quantize --model_path "$work/$source.onnx" --output "$model" >> "$work/log" 2>&1
    for isa in scalar avx2 avx512vnni; do
        for threads in 1 2 4; do
            for batch in 1 32 100000; do
                rm -f "$work/v.npy"
                "$sdx" embed --model_path "$model" --tokenizer "$checkpoint" --input "$work/texts" --output "$work/v.npy" \
                    --isa $isa --threads $threads --batch_tokens $batch --quiet >> "$work/log" 2>&1
                sum=$(sha256sum < "$work/v.npy")
                : "${first:=$sum}"
                if [ -s "$work/v.npy" ] && [ "$sum" = "$first" ]; then passed=$((passed + 1)); continue; fi
                failed=$((failed + 1))
                echo "FAILED $source: $isa, $threads threads, batches of $batch tokens: other bytes"
            done
        done
    done
done
[ $failed = 0 ] || tail -n 3 "$work/log"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
