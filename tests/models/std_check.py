"""std_check.py SARDONYX ZOO: what `optimize --target std` writes is ONNX and nothing else, and means the same.

Also for a text of nothing but padding. For each raw graph of the zoo, and for a graph of opset 9 whose operators have all changed since: only the default domain
is imported, onnx.checker passes, and ONNX Runtime, ONNX's reference evaluator and this engine give PyTorch's outputs (of
the old graph: those of ONNX Runtime before) within 1e-5 * max(1, largest |golden|). With --fp16 the raw graphs shrink and are within 5e-3 here and in ONNX Runtime.
Closes with "N passed, N failed".
"""
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from onnx.reference import ReferenceEvaluator

BOUND, HALF_BOUND = 1e-5, 5e-3
ort.set_default_logger_severity(4)


def old_graph(path):
    """Attributes that became inputs, a Softmax of rows, parts that were not counted."""
    steps = [("Clip", ["x"], ["c"], dict(min=-1.0, max=1.5)), ("Dropout", ["c"], ["d"], dict(ratio=0.5)),
             ("Split", ["d"], ["s0", "s1"], dict(axis=2)), ("Slice", ["s0"], ["l"], dict(starts=[1], ends=[4], axes=[1])),
             ("Pad", ["l"], ["p"], dict(pads=[0, 1, 0, 0, 0, 0], value=0.25)), ("ReduceMean", ["p"], ["m"], dict(axes=[1])),
             ("ReduceSum", ["s1"], ["r"], dict(axes=[1], keepdims=1)), ("Add", ["m", "r"], ["a"], {}),
             ("TopK", ["a"], ["t", "ti"], dict(k=3, axis=2)), ("Squeeze", ["t"], ["q"], dict(axes=[1])),
             ("Softmax", ["q"], ["f"], dict(axis=1)), ("Unsqueeze", ["f"], ["y"], dict(axes=[0]))]
    nodes = [helper.make_node(op, i, o, f"{op}_{k}", **a) for k, (op, i, o, a) in enumerate(steps)]
    graph = helper.make_graph(nodes, "old", [helper.make_tensor_value_info("x", 1, ["b", 4, 8])],
                              [helper.make_tensor_value_info("y", 1, [1, "b", 3])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4), path)
    x = np.random.default_rng(5).standard_normal((2, 4, 8)).astype(np.float32)
    return {"x": x}, {"y": ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]}


def cases(graph):
    folder, stem = os.path.dirname(graph), os.path.basename(graph)[:-5]
    found = sorted(glob.glob(f"{folder}/{stem}.case_*")) or sorted(glob.glob(f"{folder}/case_*"))
    read = lambda case, kind: {os.path.basename(f)[len(kind):-4]: np.load(f) for f in glob.glob(f"{case}/{kind}*.npy")}
    return [(read(c, "input_"), read(c, "output_")) for c in found]


def run_here(program, path, inputs, names, work):
    arguments = []
    for i, (key, array) in enumerate(inputs.items()):
        np.save(f"{work}/in_{i}.npy", array)
        arguments.append(f"{key}={work}/in_{i}.npy")
    subprocess.run([program, "run", path, "--quiet", "--output_dir", f"{work}/o", "--input", *arguments], check=True,
                   stdout=subprocess.DEVNULL)
    return [np.load(f"{work}/o/{n}.npy") for n in names]


def error(got, golden):
    if got.shape != golden.shape:
        return float("inf")
    return np.abs(got.astype(np.float64) - golden).max() / max(1.0, np.abs(golden).max()) if golden.size else 0.0


def odd_masks(graph, inputs):
    """A text of nothing but padding, and one with holes, with what the graph as it was gives."""
    plain = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for name in (n for n in inputs if n.endswith("attention_mask")):
        odd = np.ones_like(inputs[name])
        odd[0], odd[-1, 1::2] = 0, 0
        feed = {i.name: {**inputs, name: odd}[i.name] for i in plain.get_inputs()}
        yield feed, dict(zip([o.name for o in plain.get_outputs()], plain.run(None, feed)))


def check(program, graph, runs, work):
    path = f"{work}/std.onnx"
    subprocess.run([program, "optimize", "--target", "std", "--model_path", graph, "--output", path], check=True,
                   stdout=subprocess.DEVNULL)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [o.domain for o in model.opset_import] == [""], model.opset_import
    session, plain = ort.InferenceSession(path, providers=["CPUExecutionProvider"]), ReferenceEvaluator(model)
    for inputs, golden in runs:
        feed = {i.name: inputs[i.name] for i in session.get_inputs()}
        names = [o.name for o in session.get_outputs() if o.name in golden]
        for outputs in (session.run(names, feed), plain.run(names, feed), run_here(program, path, feed, names, work)):
            worst = max(error(got, golden[n]) for got, n in zip(outputs, names))
            assert worst <= BOUND, f"off by {worst:.1e}"


def check_half(program, graph, runs, work):
    path = f"{work}/half.onnx"
    subprocess.run([program, "optimize", "--fp16", "--model_path", graph, "--output", path], check=True,
                   stdout=subprocess.DEVNULL)
    share = os.path.getsize(path) / os.path.getsize(graph)
    assert share < 0.8, f"{share:.2f} of the file's size"
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for inputs, golden in runs:
        feed = {i.name: inputs[i.name] for i in session.get_inputs()}
        names = [o.name for o in session.get_outputs() if o.name in golden and golden[o.name].dtype == np.float32]
        for outputs in (session.run(names, feed), run_here(program, path, feed, names, work)):
            worst = max(error(got, golden[n]) for got, n in zip(outputs, names))
            assert worst <= HALF_BOUND, f"fp16 off by {worst:.1e}"


def main(program, zoo):
    passed = failed = 0
    with tempfile.TemporaryDirectory() as work:
        old = f"{work}/old.onnx"
        runs = [(old, [old_graph(old)])]
        found = sorted(g for g in glob.glob(f"{zoo}/**/*.onnx", recursive=True) if ".ort-" not in g and "merged" not in g)
        for graph, given in runs + [(g, cases(g)) for g in found]:
            if not given:
                continue
            try:
                odd = [] if graph == old else odd_masks(graph, given[-1][0])
                check(program, graph, [*given, *odd], work)
                if graph != old and "splade" not in graph:  # there, which weights are 0 hangs on a digit
                    check_half(program, graph, given, work)
                passed += 1
            except Exception as problem:  # whatever a runtime raises
                failed += 1
                print(f"FAILED {os.path.relpath(graph, zoo)}: {problem}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main(*sys.argv[1:]))
