#!/usr/bin/env bash
# tokens.sh SARDONYX SHARED: Hugging Face's own ids for 1,500 texts a tokenizer, from tokenizer.json and from vocab.txt
# alone; and back to text.
set -u
sdx=$(realpath "$1") shared=$2
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
minilm=$(sh "$here/../../tools/fetch_minilm.sh") || { echo "0 passed, 1 failed"; exit 1; }
for row in minilm-bert-uncased:"$minilm" bert-model:"$shared/zoo/bert-model/checkpoint"; do
    name=${row%%:*} folder=${row#*:}
    mkdir -p "$work/$name"
    cp "$folder/vocab.txt" "$folder/tokenizer_config.json" "$work/$name/"
    for tokenizer in "$folder" "$work/$name"; do
        python3 "$here/compare_tokens.py" "$sdx" "$tokenizer" "$shared/tokens/$name.jsonl" > "$work/log"
        grep -v passed "$work/log"
        line=$(tail -n 1 "$work/log")
        echo "$name from $(ls "$tokenizer" | tr '\n' ' '): $line"
        passed=$((passed + ${line%% *}))
        line=${line#*, }
        failed=$((failed + ${line%% *}))
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
