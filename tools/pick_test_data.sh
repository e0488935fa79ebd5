#!/usr/bin/env bash
# pick_test_data.sh SHARED: fills tests/data with the compact choice that `make check` runs on (at most 25 MB): of every
# encoder family a raw graph of each exporter and one that ONNX Runtime optimized; the BERT checkpoints; PyTorch's golden
# outputs.
set -eu
shared=$(realpath "${1:?usage: pick_test_data.sh SHARED}")
cd "$(dirname "$0")/../tests/data"
pick() { # entry, then the graphs taken
    local entry=$1 case
    shift
    mkdir -p "zoo/$entry"
    for graph in "$@"; do cp "$shared/zoo/$entry/$graph.onnx" "zoo/$entry/"; done
    for case in "$shared/zoo/$entry"/case_*; do
        mkdir -p "zoo/$entry/$(basename "$case")"
        cp "$case"/input_*.npy "$case"/output_*.npy "zoo/$entry/$(basename "$case")/"
    done
}
checkpoint() { for entry in "$@"; do mkdir -p "zoo/$entry"; cp -r "$shared/zoo/$entry/checkpoint" "zoo/$entry/"; done; }
pick bert-model torchscript-op14 dynamo-op18 torchscript-op14.ort-optimized
pick bert-model-sdpa torchscript-op14 dynamo-op18
pick bert-mlm torchscript-op14
pick bert-splade torchscript-op14
pick bert-classify-bin torchscript-op14
pick distilbert-classify torchscript-op14 dynamo-op18
pick electra-model torchscript-op14 dynamo-op18 torchscript-op14.ort-optimized
pick roberta-classify torchscript-op14 dynamo-op18 torchscript-op14.ort-optimized
checkpoint bert-model bert-mlm bert-splade bert-classify-bin
chmod -R u+w zoo
mkdir -p tokens
cp "$shared/tokens/bert-model.jsonl" tokens/
tokenizer() { # entry, then its files; and the first 300 of Hugging Face's rows
    local entry=$1 file
    shift
    mkdir -p "zoo/$entry/checkpoint"
    for file in tokenizer.json tokenizer_config.json special_tokens_map.json "$@"; do
        cp "$shared/zoo/$entry/checkpoint/$file" "zoo/$entry/checkpoint/"
    done
    head -n 300 "$shared/tokens/$entry.jsonl" > "tokens/$entry.jsonl"
}
tokenizer roberta-classify vocab.json merges.txt
tokenizer t5 spiece.model
chmod -R u+w tokens
du -sh .
