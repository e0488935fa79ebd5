#!/usr/bin/env bash
# guide.sh SARDONYX GUIDE: the Anserini guide's 1,504-node export and its siblings: optimize, count, compare the outputs
# with PyTorch's.
set -u
sdx=$1 guide=$2
check=$(dirname "$sdx")/zoo_check
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $2"; fi; }

# graph, nodes before, most nodes after, attention blocks
while read -r name before most attention; do
    mkdir -p "$work/$name"
    cp -r "$guide/$name/case_0" "$guide/$name/model.onnx" "$work/$name/"
    chmod -R u+w "$work/$name"
    stats=$("$sdx" optimize --model_path "$work/$name/model.onnx" --output "$work/$name/optimized.onnx" --stats)
    ok $? "$name: optimize"
    echo "$stats"
    nodes=$(echo "$stats" | grep 'Number of nodes' | grep -oE '[0-9]+')
    [ "$(echo "$nodes" | head -n 1)" = "$before" ]
    ok $? "$name: starts from $before nodes"
    [ "$(echo "$nodes" | tail -n 1)" -le "$most" ]
    ok $? "$name: at most $most nodes after, got $(echo "$nodes" | tail -n 1)"
    echo "$stats" | grep -qE "^ *Attention: $attention\$"
    ok $? "$name: $attention attention blocks fused"
    [ "$("$sdx" inspect "$work/$name/optimized.onnx" --json | grep -c '"com.microsoft"')" -ge 1 ]
    ok $? "$name: imports com.microsoft"
done <<'ROWS'
bert-12l-sdpa 1504 91 12
bert-12l-eager 1347 91 12
splade-12l-sdpa 1581 105 12
ROWS
line=$("$check" "$work")
echo "$line"
passed=$((passed + $(echo "$line" | grep -oE '[0-9]+ passed' | tail -n 1 | cut -d' ' -f1)))
failed=$((failed + $(echo "$line" | grep -oE '[0-9]+ failed' | tail -n 1 | cut -d' ' -f1)))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
