"""fusion_check.py SARDONYX SHARED [OTHER_PYTHON]: every attention is fused, and the files mean what they meant.

For each graph as its exporter wrote it: optimize; count the attention operators left against the model's attention
blocks; run the file in ONNX Runtime and here on the stored cases; compare with PyTorch's outputs at
1e-5 * max(1, largest |golden|). The same under odd masks (padding on the left, holes, nothing to see at all), compared
with the graph as it was exported, run by ONNX Runtime without any optimization. OTHER_PYTHON is an interpreter with another ONNX Runtime (1.17.0, say) that must load and
compute the same. Prints one line per graph; closes with "N passed, N failed".
"""
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np

BLOCKS = {  # attention blocks per graph: layers, twice that where a decoder also looks at an encoder
    "guide/": 12, "zoo/bart/optimum/encoder_model": 2, "zoo/bart/optimum/decoder": 4,
    "zoo/t5/optimum/encoder_model": 2, "zoo/t5/optimum/decoder": 4, "zoo/": 2,
}
BOUND = 1e-5
RUN = """
import sys, numpy as np, onnxruntime as o
o.set_default_logger_severity(4)
path, inputs, out, plain = sys.argv[1:]
options = o.SessionOptions()
if plain == "plain":
    options.graph_optimization_level = o.GraphOptimizationLevel.ORT_DISABLE_ALL
s = o.InferenceSession(path, options, providers=["CPUExecutionProvider"])
feed = np.load(inputs)
names = [x.name for x in s.get_outputs()]
np.savez(out, **dict(zip(names, s.run(None, {i.name: feed[i.name] for i in s.get_inputs()}))))
"""


def blocks(name):
    return next(count for prefix, count in BLOCKS.items() if name.startswith(prefix))


def graphs(shared):
    found = glob.glob(f"{shared}/guide/*/model.onnx") + glob.glob(f"{shared}/zoo/**/*.onnx", recursive=True)
    return sorted(g for g in found if ".ort-" not in g and "merged" not in g)


def cases(graph):
    folder, stem = os.path.dirname(graph), os.path.basename(graph)[:-5]
    return sorted(glob.glob(f"{folder}/{stem}.case_*")) or sorted(glob.glob(f"{folder}/case_*"))


def read(case, kind):
    return {os.path.basename(f)[len(kind):-4]: np.load(f) for f in glob.glob(f"{case}/{kind}*.npy")}


def call(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def attentions(path):
    import onnx
    ops = [n.op_type for n in onnx.load(path, load_external_data=False).graph.node]
    return ops.count("Attention") + ops.count("MultiHeadAttention"), len(ops)


def run_here(program, path, inputs, names, work):
    arguments = []
    for i, (key, array) in enumerate(inputs.items()):
        np.save(f"{work}/in_{i}.npy", array)
        arguments.append(f"{key}={work}/in_{i}.npy")
    call(program, "run", path, "--quiet", "--output_dir", f"{work}/o", "--input", *arguments)
    return {name: np.load(f"{work}/o/{name}.npy") for name in names}


def run_there(python, path, inputs, work, how="optimized"):
    np.savez(f"{work}/in.npz", **inputs)
    call(python, "-c", RUN, path, f"{work}/in.npz", f"{work}/out.npz", how)
    return dict(np.load(f"{work}/out.npz"))


def error(got, golden):
    """Largest difference over max(1, largest |golden|), over all outputs that both have."""
    worst = 0.0
    for name, g in golden.items():
        if name not in got:
            continue
        if got[name].shape != g.shape:
            return float("inf")
        if g.size:
            worst = max(worst, np.abs(got[name].astype(np.float64) - g).max() / max(1.0, np.abs(g).max()))
    return worst


def odd_masks(inputs):
    """The inputs of a case again and again, each time with another mask; nothing for a graph without."""
    for name in (n for n in inputs if n.endswith("attention_mask")):
        mask = np.ones_like(inputs[name])
        left, holes, blind = mask.copy(), mask.copy(), mask.copy()
        left[0, :max(1, mask.shape[1] // 3)] = holes[:, 1::2] = blind[0] = 0
        yield from ({**inputs, name: odd} for odd in (left, holes, blind))


def runs(graph, work):
    """(inputs, what has to come out)"""
    for case in cases(graph):
        inputs = read(case, "input_")
        yield inputs, read(case, "output_")
    for odd in odd_masks(inputs):
        yield odd, run_there(sys.executable, graph, odd, work, "plain")


def check(program, graph, name, pythons, work):
    path = f"{work}/optimized.onnx"
    call(program, "optimize", "--model_path", graph, "--output", path)
    before, after = attentions(graph)[1], attentions(path)
    worst = [0.0] * (1 + len(pythons))
    for inputs, golden in runs(graph, work):
        there = [run_there(p, path, inputs, work) for p in pythons]
        here = run_here(program, path, inputs, [n for n in golden if n in there[0]], work)
        worst = [max(w, error(got, golden)) for w, got in zip(worst, [here, *there])]
    good = after[0] == blocks(name) and all(w <= BOUND for w in worst) and cases(graph)
    shown = " ".join(f"{w:8.1e}" for w in worst)
    print(f"{'ok    ' if good else 'FAILED'} {name:52} attention {after[0]:2}/{blocks(name):2}  nodes {before:4} -> "
          f"{after[1]:3}  errors here, there {shown}", flush=True)
    return bool(good)


def main(program, shared, *others):
    passed = failed = 0
    for graph in graphs(shared):
        name = os.path.relpath(graph, shared)
        with tempfile.TemporaryDirectory() as work:
            try:
                good = check(program, graph, name, [sys.executable, *others], work)
            except RuntimeError as problem:
                print(f"FAILED {name}: {problem}", flush=True)
                good = False
        passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main(*sys.argv[1:]))
