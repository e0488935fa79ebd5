#!/usr/bin/env bash
# tokens.sh SARDONYX SHARED: Hugging Face's own ids, segment ids and decoded texts for 1,500 texts a tokenizer, from
# tokenizer.json and from the older files alone.
set -u
sdx=$(realpath "$1") shared=$2
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
minilm=$(sh "$here/../../tools/fetch_minilm.sh") || { echo "0 passed, 1 failed"; exit 1; }
compare() { # rows, folder
    python3 "$here/compare_tokens.py" "$sdx" "$2" "$shared/tokens/$1.jsonl" > "$work/log"
    grep -v passed "$work/log"
    line=$(tail -n 1 "$work/log")
    echo "$1 from $(ls "$2" | tr '\n' ' '): $line"
    passed=$((passed + ${line%% *}))
    line=${line#*, }
    failed=$((failed + ${line%% *}))
}
check() { # rows, checkpoint, its older files
    local rows=$1 folder=$2 file
    shift 2
    mkdir -p "$work/$rows"
    for file in tokenizer_config.json "$@"; do cp "$folder/$file" "$work/$rows/"; done
    compare "$rows" "$folder"
    compare "$rows" "$work/$rows"
}
check minilm-bert-uncased "$minilm" vocab.txt
check bert-model "$shared/zoo/bert-model/checkpoint" vocab.txt
check roberta-classify "$shared/zoo/roberta-classify/checkpoint" vocab.json merges.txt
check bart "$shared/zoo/bart/checkpoint" vocab.json merges.txt
check t5 "$shared/zoo/t5/checkpoint" spiece.model
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
