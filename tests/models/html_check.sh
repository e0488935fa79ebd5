#!/usr/bin/env bash
# html_check.sh SARDONYX PYTHON MODEL: the page of `inspect --html` in headless Chromium. MODEL is the guide's
# 1,504-node export; a graph of hostile names and one with subgraphs are made here (PYTHON has onnx).
set -u
sdx=$1 python=$2 model=$3
if ! command -v chromium >/dev/null; then
    echo "html_check: chromium is missing; make check-full installs it where it may"
    echo "0 passed, 1 failed"
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $2"; fi; }

# page FILE HASH: the document after its script has run, without the data and the script.
page() {
    timeout 120 chromium --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --window-size=1400,900 \
        --dump-dom "file://$work/$1#$2" 2>>"$work/chromium.log" | sed '/<script/,/<\/script>/d'
}
has() { grep -qF -- "$2" <<<"$1"; ok $? "$3: $2"; }
hasnot() { ! grep -qF -- "$2" <<<"$1"; ok $? "$3: should not have $2"; }

"$sdx" inspect "$model" --html "$work/guide.html" >/dev/null
ok $? 'guide: inspect --html'
! grep -qE '(src|href)=|https?://|@import|fetch\(' "$work/guide.html"
ok $? 'guide: the page asks for nothing from outside'
dom=$(page guide.html '')
has "$dom" 'nodes: 1504' 'guide: summary'
dom=$(page guide.html 'find=/encoder/layer.3/attention/self/Reshape_1')
for text in '<h2>Reshape</h2>' 'allowzero = <code>0</code>' '<code>float32[batch_size,sequence,12,4]</code>' \
    'Collapse encoder/layer.3' '/encoder/layer.3/attention/self/Transpose_2  Transpose'; do
    has "$dom" "$text" 'guide: found by its name'
done
dom=$(page guide.html 'find=encoder.layer.7.attention.self.query.bias')
has "$dom" '<h2>Add</h2>' 'guide: a weight leads to its reader'
has "$dom" 'initializer, 192 bytes: ' 'guide: initializer'
dom=$(page guide.html 'find=nothing is called this')
has "$dom" '0 found' 'guide: no such node'

# 1,504 boxes: layout below a second, a frame below the 16 ms of a screen, on a slow machine without a GPU
dom=$(page guide.html 'measure')
grep -o '[0-9]* boxes, layout [^<]*' <<<"$dom"
read -r boxes layout frame <<<"$(grep -oE '[0-9]+ boxes, layout [0-9]+ ms, frame [0-9]+' <<<"$dom" | tr -dc '0-9 \n')"
[ "${boxes:-0}" -ge 1504 ] && [ "$layout" -lt 1000 ] && [ "$frame" -lt 16 ]
ok $? "guide: fluid: ${boxes:-no} boxes, layout ${layout:-?} ms, frame ${frame:-?} ms"

"$python" - "$work" <<'PY'
import sys, numpy as np, onnx
from onnx import helper as h, numpy_helper as nh, TensorProto as T
out = sys.argv[1]
def save(name, nodes, inits=()):
    x, y = (h.make_tensor_value_info(n, T.FLOAT, ["n", 4]) for n in ("x", "y"))
    onnx.save(h.make_model(h.make_graph(nodes, "g", [x], [y], list(inits)), ir_version=8,
                           opset_imports=[h.make_opsetid("", 17)]), f"{out}/{name}.onnx")
evil = '</script><script>document.title="owned"</script><img src=x onerror=\'document.title="owned"\'>"\\\u2028@MODEL@'
save("hostile", [h.make_node("Relu", ["x"], [evil], name=evil), h.make_node("Neg", [evil], ["y"], name="<!--<script>")])
body = lambda op: h.make_graph([h.make_node(op, ["x"], [op + "_y"], name="inner_" + op)], op, [],
                               [h.make_tensor_value_info(op + "_y", T.FLOAT, None)])
save("branches", [h.make_node("If", ["c"], ["y"], name="choice", then_branch=body("Exp"), else_branch=body("Log"))],
     [nh.from_array(np.array(True), "c")])
nodes, at = [], "x"  # 2,000 nodes whose names say nothing: layers are read off the weights
for i in range(2000):
    layer = i // 100
    nodes.append(h.make_node("Add", [at, f"m.layers.{layer}.bias"] if i % 100 == 0 else [at, at], [f"{i}"], name=f"Add_{i}"))
    at = f"{i}"
nodes.append(h.make_node("Neg", [at], ["y"]))
save("deep", nodes, [nh.from_array(np.ones(4, "f"), f"m.layers.{k}.bias") for k in range(20)])
PY
ok $? 'making graphs'
for name in hostile branches deep; do
    "$sdx" inspect "$work/$name.onnx" --html "$work/$name.html" >/dev/null
    ok $? "$name: inspect --html"
done
dom=$(page hostile.html 'find=onerror')
has "$dom" '<h2>Relu</h2>' 'hostile: the page works'
has "$dom" '&lt;img src=x' 'hostile: the name is text'
hasnot "$dom" '<img' 'hostile: and not an element'
hasnot "$dom" '<title>owned' 'hostile: nothing of it ran'
dom=$(page branches.html 'find=inner_Log')
has "$dom" '<h2>Log</h2>' 'branches: a node in a subgraph is found'
dom=$(page branches.html 'find=choice')
has "$dom" 'else_branch = <a>graph of 1 nodes</a>' 'branches: subgraphs are links'
dom=$(page deep.html 'find=Add_1777')
has "$dom" 'Collapse m.layers.17' 'deep: layers by weights'
dom=$(page deep.html 'measure')
grep -o '[0-9]* boxes, layout [^<]*' <<<"$dom"
has "$dom" '2003 boxes' 'deep: all drawn'

# an operator inside an attention: the page of --explain=html says so, and the node of the region too
"$python" - "$work" tests/data/zoo/bert-mlm/torchscript-op14.onnx <<'PY'
import sys, onnx
m = onnx.load(sys.argv[2])
at = next(i for i, n in enumerate(m.graph.node) if n.op_type == "Softmax")
m.graph.node.insert(at, onnx.helper.make_node("Relu", [m.graph.node[at].input[0]], ["broken_out"], name="broken<b>"))
m.graph.node[at + 1].input[0] = "broken_out"
onnx.save(m, f"{sys.argv[1]}/miss.onnx")
PY
"$sdx" optimize --model_path "$work/miss.onnx" --output "$work/o.onnx" --explain=html >"$work/miss.html" 2>/dev/null
[ $? = 1 ]; ok $? 'explain: exit code 1'
dom=$(page miss.html '')
has "$dom" 'places fused, 1 not' 'explain: counted'
has "$dom" 'ATTENTION NOT FUSED' 'explain: the miss'
has "$dom" 'the scores are not a product, scaled and masked' 'explain: the reason'
has "$dom" 'became SkipLayerNormalization' 'explain: what was fused'
dom=$(page miss.html 'find=broken<b>')
has "$dom" '<h2>Relu</h2>' 'explain: the node'
has "$dom" 'would help: remove the operator' 'explain: it knows its finding'
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
