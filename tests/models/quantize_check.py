"""quantize_check.py SARDONYX ZOO [--forms A,B] [--expected FILE] [PATTERN...]: what the quantizer makes of other tools' graphs.

Every graph as its exporter wrote it, and optimized by us, is quantized in each form of FORMS; static forms are
calibrated on the graph's own cases. Each file must load in ONNX Runtime, and its outputs there and here
(--strict_onnx) must agree to 2e-3 of the largest, as root mean square: an activation on a tie between two codes goes to one
or the other by the last bit of a float (docs/quantized-graphs.md). FILE lists where that happens, with a bound: on another
CPU it may not. Closes with "N passed, N failed".
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime as ort

WITH_CONV = ["--op_types", "MatMul,Gemm,Gather,Attention,EmbedLayerNormalization,Conv"]
FORMS = {
    "ours": [],
    "tensor": ["--preset", "anserini"],
    "channel": ["--preset", "anserini", "--per_channel", *WITH_CONV],
    "uint8": ["--weight_type", "QUInt8", "--per_channel", *WITH_CONV],
    "qdq": ["--static", "--format", "qdq", *WITH_CONV],
    "qdq-percentile": ["--static", "--format", "qdq", "--calibrate_method", "percentile", "--preset", "anserini"],
    "static": ["--static", "--calibrate_method", "entropy", "--op_types", "MatMul,Gemm,Attention,Conv"],
    "4-bit": ["--weight_only", "4"],
    "8-bit": ["--weight_only", "8", "--block_size", "64"],
}
BOUND = 2e-3
ort.set_default_logger_severity(4)


def find_graphs(zoo, patterns):
    found = glob.glob(f"{zoo}/**/*.onnx", recursive=True)
    raw = sorted(g for g in found if ".ort-" not in g and "merged" not in g)
    return [g for g in raw if not patterns or any(p in g for p in patterns)]


def find_cases(graph):
    folder, stem = os.path.dirname(graph), os.path.basename(graph)[:-5]
    return sorted(glob.glob(f"{folder}/{stem}.case_*")) or sorted(glob.glob(f"{folder}/case_*")) or \
        sorted(glob.glob(f"{os.path.dirname(folder)}/case_*"))


def call(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{arguments[1]}: exit {done.returncode}: {done.stderr.strip()[-300:]}")


def read_inputs(case, wanted):
    names = {os.path.basename(f)[6:-4]: f for f in glob.glob(f"{case}/input_*.npy")}
    spelled = {n: n.replace("/", "_") for n in wanted}
    return {n: names[s] for n, s in spelled.items() if s in names}


def run_here(program, path, files, names, work):
    call(program, "run", path, "--quiet", "--strict_onnx", "--threads", "1", "--output_dir", work, "--input",
         *[f"{n}={f}" for n, f in files.items()])
    return [np.load(f"{work}/{n.replace('/', '_')}.npy") for n in names]


def difference(a, b):
    """Root mean square over the largest; a SPLADE pair of lists may differ in length by an entry near 0."""
    if a.dtype == bool or np.issubdtype(a.dtype, np.integer):
        return 0.0 if a.shape == b.shape else 1.0
    if a.shape != b.shape:
        return 1.0
    d = a.astype(np.float64) - b
    return np.sqrt((d ** 2).mean()) / max(1.0, np.abs(b).max()) if d.size else 0.0


def dense(names, outputs, size=1 << 16):
    if names != ["output_idx", "output_weights"]:
        return outputs
    vector = np.zeros(size)
    vector[outputs[0]] = outputs[1]
    return [vector]


def check(program, source, case, form, work):
    """The difference between here and ONNX Runtime."""
    path = f"{work}/{form}.onnx"
    cases = ["--calibration", case] if "--static" in FORMS[form] else []
    call(program, "quantize", "--model_path", source, "--output", path, "--threads", "1", *FORMS[form], *cases)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    files = read_inputs(case, [i.name for i in session.get_inputs()])
    there = session.run(None, {n: np.load(f) for n, f in files.items()})
    here = run_here(program, path, files, names, f"{work}/{form}")
    return max(difference(a, b) for a, b in zip(dense(names, here), dense(names, there)))


def read_expected(path):
    lines = open(path, encoding="utf-8").read().splitlines() if path else []
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {row[0]: float(row[1]) for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("zoo")
    parser.add_argument("pattern", nargs="*")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--expected")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    expected = read_expected(options.expected)
    passed = failed = 0
    for graph in find_graphs(options.zoo, options.pattern):
        for kind in ("raw", "optimized"):
            with tempfile.TemporaryDirectory() as work:
                source = graph
                if kind == "optimized":
                    source = f"{work}/source.onnx"
                    call(options.program, "optimize", "--model_path", graph, "--output", source)
                for form in options.forms.split(","):
                    name = f"{os.path.relpath(graph, options.zoo)} {kind} {form}"
                    try:
                        found = check(options.program, source, find_cases(graph)[0], form, work)
                        what = f"differs by {found:.1e} from ONNX Runtime"
                    except Exception as error:  # one broken form must not hide the others
                        found, what = np.inf, f"{type(error).__name__}: {str(error)[:300]}"
                    good = found <= expected.get(name, BOUND)
                    passed, failed = passed + good, failed + (not good)
                    if not good or options.verbose:
                        print("" if good else "FAILED", name, what, flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed != 0 or not passed


sys.exit(main())
