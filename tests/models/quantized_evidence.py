"""quantized_evidence.py SARDONYX ZOO [PATTERN...]: the numbers behind docs/quantized-graphs.md.

For every quantized graph and case, against what ONNX Runtime computes now with all optimizations: we, ONNX Runtime without
optimizations, we against that, and ONNX Runtime after moving its float weights by one unit in the last place (the
largest of N_PERTURBED). Each as max / root mean square of the difference over max(1, max |reference|). Where we differ by
more than float rounding in a dynamically quantized graph, also the first DynamicQuantizeLinear whose codes differ.
"""
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

N_PERTURBED = 16
ALL, NONE = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL
ort.set_default_logger_severity(4)


def run_there(model, inputs, level=ALL):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})))


def run_here(program, path, inputs, names):
    with tempfile.TemporaryDirectory() as work:
        for key, array in inputs.items():
            np.save(f"{work}/{key}.npy", array)
        feeds = [f"{key}={work}/{key}.npy" for key in inputs]
        subprocess.run([program, "run", path, "--quiet", "--no_optimize", "--output_dir", f"{work}/out", "--input", *feeds],
                       check=True, capture_output=True)
        found = {f.removesuffix(".npy"): np.load(f"{work}/out/{f}") for f in os.listdir(f"{work}/out")}
    spelled = {name: name.lstrip("/").replace("/", "_") for name in names}
    return {name: found[s if s in found else name.replace("/", "_")] for name, s in spelled.items()}


def difference(a, b):
    d, norm = a.astype(float) - b, max(1, np.abs(b).max())
    return np.abs(d).max() / norm, np.sqrt((d**2).mean()) / norm


def perturb(path, seed):
    model, random = onnx.load(path), np.random.default_rng(seed)
    for t in model.graph.initializer:
        if t.data_type != onnx.TensorProto.FLOAT or np.prod(t.dims) < 2:
            continue
        x = numpy_helper.to_array(t)
        toward = random.choice(np.array([-np.inf, np.nan, np.inf], np.float32), x.shape)
        moved = np.where(np.isnan(toward) | (x == 0), x, np.nextafter(x, toward)).astype(np.float32)
        t.CopyFrom(numpy_helper.from_array(moved, t.name))
    return model.SerializeToString()


def first_flip(program, path, inputs):
    model = onnx.load(path)
    quantizers = [n for n in model.graph.node if n.op_type == "DynamicQuantizeLinear"]
    known = {v.name for v in [*model.graph.output, *model.graph.input]}
    for n in quantizers:
        for name, kind in ((n.output[0], 2), (n.output[1], 1), (n.input[0], 1)):
            if name not in known:
                model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
                known.add(name)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as f:
        onnx.save(model, f.name)
        there = run_there(f.name, inputs, NONE)
        here = run_here(program, f.name, inputs, list(there))
    for n in quantizers:
        code, scale, x = n.output[0], n.output[1], n.input[0]
        differs = there[code] != here[code]
        if differs.any() and x in there:
            at = tuple(np.argwhere(differs)[0])
            return (f"first flip at {n.name}: {differs.sum()} of {differs.size} codes, x/scale there "
                    f"{there[x][at] / there[scale]:.7f}, here {here[x][at] / here[scale]:.7f}")
    return "no code differs"


def check(program, zoo, path):
    folder, stem = os.path.dirname(path), os.path.basename(path).removesuffix(".onnx")
    cases = sorted(glob.glob(f"{folder}/case_*")) or sorted(glob.glob(f"{folder}/{stem.split('.')[0]}.case_*"))
    for case in cases:
        inputs = {os.path.basename(p)[6:-4]: np.load(p) for p in glob.glob(f"{case}/input_*.npy")}
        inputs = {i.name: inputs[i.name] for i in onnx.load(path).graph.input}
        label = f"{path[len(zoo) + 1:]} {os.path.basename(case)}"
        try:
            best, plain = run_there(path, inputs), run_there(path, inputs, NONE)
        except Exception as e:
            print(label, "ONNX Runtime refuses it:", str(e).split("\n")[0][:100])
            continue
        here = run_here(program, path, inputs, list(best))
        moved = [run_there(perturb(path, seed), inputs) for seed in range(N_PERTURBED)]
        worst = 0
        for name in best:
            rows = [("we", difference(here[name], best[name])), ("ort plain", difference(plain[name], best[name])),
                    ("we to plain", difference(here[name], plain[name])),
                    ("ort moved", max(difference(m[name], best[name]) for m in moved))]
            worst = max(worst, rows[2][1][0])
            print(label, name, *(f"{what} {a:.1e}/{b:.1e}" for what, (a, b) in rows), flush=True)
        if worst > 1e-4 and "qdq" not in stem:
            print("   ", first_flip(program, path, inputs), flush=True)


def check_levels(program):
    """MatMulNBits of 4 bits, K 768, N 256, blocks of 32, under ONNX Runtime's accuracy levels 0 and 4."""
    random, there = np.random.default_rng(1), {}
    constants = [random.integers(0, 256, (256, 24, 16), np.uint8), random.uniform(0.01, 0.02, 256 * 24).astype(np.float32)]
    x = {"x": random.standard_normal((64, 768)).astype(np.float32)}
    for level in (0, 4):
        node = onnx.helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=768, N=256, bits=4,
                                     block_size=32, accuracy_level=level)
        graph = onnx.helper.make_graph(
            [node], "g", [onnx.helper.make_tensor_value_info("x", 1, [64, 768])], [onnx.ValueInfoProto(name="y")],
            [numpy_helper.from_array(c, n) for c, n in zip(constants, "ws")])
        made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(d, v)
                                                            for d, v in (("", 17), ("com.microsoft", 1))], ir_version=8)
        there[level] = run_there(made.SerializeToString(), x)["y"]
        with tempfile.TemporaryDirectory() as work:
            onnx.save(made, f"{work}/m.onnx")
            here = run_here(program, f"{work}/m.onnx", x, ["y"])["y"]
        print("MatMulNBits, accuracy_level", level, "we to ONNX Runtime %.1e/%.1e" % difference(here, there[level]))
    print("ONNX Runtime, accuracy_level 4 to 0 %.1e/%.1e" % difference(there[4], there[0]))


def main():
    program, zoo, *patterns = sys.argv[1:]
    check_levels(program)
    for path in sorted(p for t in (patterns or ["*8bit*", "*qdq*"]) for d in ("*", "*/*") for p in glob.glob(f"{zoo}/{d}/{t}.onnx")):
        check(program, zoo, path)


main()
