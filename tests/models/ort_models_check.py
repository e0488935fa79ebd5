"""ort_models_check.py SARDONYX ORT_MODELS: the models of ONNX Runtime's own tests run here as they do there.

MANIFEST.tsv lists them. Each that ONNX Runtime loads and runs on made-up inputs becomes an ONNX test folder (inputs and
its outputs as .pb files), which `sardonyx test` compares. The others must end here with a message: no crash, no hang.
ort_models_expected.tsv beside this script lists exceptions, path<TAB>reason; one that is no longer needed fails.
--list prints every failure with its reason, in that form.
"""
import csv
import itertools
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime as ort

ort.set_default_logger_severity(4)
SIZES = [3, 1, 8, 4, 64]  # of dims without a number, tried in turn
LIMIT = 60  # seconds
LARGEST = 1 << 26  # elements of a declared input
FLAGS = {"float16": np.float16, "float": np.float32, "double": np.float64, "bool": np.bool_}
FLAGS |= {f"{u}int{n}": np.dtype(f"{u}int{n}") for u in ("", "u") for n in (8, 16, 32, 64)}


def size_of(dim, sizes, default):
    """A number, a named size, or a sum of such: "past_sequence_length + 1"."""
    if isinstance(dim, int):
        return dim if dim >= 0 else default
    if not dim:
        return default
    parts = [p.strip() for p in dim.split("+")]
    return sum(int(p) if p.isdigit() else sizes.get(p, default) for p in parts)


def make_tensor(rng, kind, shape, ones):
    dtype = FLAGS.get(kind)
    if dtype is None:
        raise ValueError(f"no numbers of type {kind}")
    if int(np.prod(shape)) > LARGEST:
        raise ValueError("too large")
    if np.issubdtype(dtype, np.floating):
        return rng.uniform(-1, 1, shape).astype(dtype)
    return np.ones(shape, dtype) if ones else rng.integers(0, 2, shape).astype(dtype)


SETTINGS = {"max_length": 12, "min_length": 1, "num_beams": 3, "num_return_sequences": 2}  # of BeamSearch


def make_input(rng, port, default, ones):
    if port.name in SETTINGS:
        return np.full(port.shape, SETTINGS[port.name], np.int32)
    match = re.fullmatch(r"(optional\()?(seq\()?tensor\((\w+)\)+", port.type)
    if not match:
        raise ValueError(f"no values of type {port.type}")
    shape = [size_of(d, {}, default) for d in port.shape]
    if match[3] == "string":
        tensor = np.full(shape, "a b", dtype=object)
    else:
        tensor = make_tensor(rng, match[3], shape, ones)
        if "mask" in port.name.lower():
            tensor = np.ones_like(tensor)  # a row without any leaves only rounding to compare
    return [tensor, tensor] if match[2] else tensor


def run_reference(session):
    """(inputs, outputs) of the first made-up inputs that ONNX Runtime takes, or None."""
    for default, ones in itertools.product(SIZES, (False, True)):
        rng = np.random.default_rng(7)
        try:
            inputs = {p.name: make_input(rng, p, default, ones) for p in session.get_inputs()}
            return inputs, session.run(None, inputs)
        except Exception:  # whatever a runtime raises: the next size may fit
            continue
    return None


def write_value(path, name, kind, value):
    if kind.startswith("optional"):
        message = onnx.numpy_helper.from_optional(value, name)
    elif isinstance(value, list):
        message = onnx.numpy_helper.from_list(value, name)
    else:
        message = onnx.numpy_helper.from_array(np.asarray(value), name)
    with open(path, "wb") as f:
        f.write(message.SerializeToString())


def graph_inputs(path):
    model = onnx.load(path, load_external_data=False)
    return [i.name for i in model.graph.input]


def make_folder(folder, path, session, inputs, outputs):
    data = f"{folder}/test_data_set_0"
    os.makedirs(data)
    os.symlink(os.path.abspath(path), f"{folder}/model.onnx")
    for other in os.listdir(os.path.dirname(path)):  # external data
        if not other.endswith(".onnx"):
            os.symlink(os.path.abspath(f"{os.path.dirname(path)}/{other}"), f"{folder}/{other}")
    kinds = {p.name: p.type for p in session.get_inputs()}
    for i, name in enumerate(graph_inputs(path)):
        if name in inputs:
            write_value(f"{data}/input_{i}.pb", name, kinds[name], inputs[name])
    for i, (port, value) in enumerate(zip(session.get_outputs(), outputs)):
        write_value(f"{data}/output_{i}.pb", port.name, port.type, value)


def has_float16(path):
    """Somewhere: a type of a port or initializer, or the target of a Cast."""
    half = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    graph = onnx.load(path, load_external_data=False).graph
    kinds = {t.data_type for t in graph.initializer} | {p.type.tensor_type.elem_type for p in [*graph.input, *graph.output]}
    kinds |= {a.i for n in graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to"}
    return bool(kinds & half)


def tolerances(path, outputs):
    """Sums end up off by their own size: made-up inputs meet weights of any scale. float16 is computed in float32 here;
    an int8 code that rounds the other way is a whole step."""
    floats = [np.abs(v[np.isfinite(v)]).max(initial=0) for v in outputs
              if isinstance(v, np.ndarray) and np.issubdtype(v.dtype, np.floating)]
    scale = float(max(floats, default=0))
    relative, absolute = 1e-4, 3e-5
    if re.search("quant|qdq|int8|int4|nbits|dynamic", path, re.IGNORECASE):
        relative, absolute = 5e-3, 5e-3
    elif has_float16(path):
        relative, absolute = 1e-2, 5e-3
    return ["--rtol", str(relative), "--atol", str(max(1e-6, absolute * scale))]


def command(arguments):
    """(exit code, last line); a signal or a hang is a negative code."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return -1, f"no end after {LIMIT} s"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line]
    return done.returncode, lines[0] if lines else ""


def make_case(folder, path):
    """The case's tolerances, or None when ONNX Runtime cannot say what is right."""
    try:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        reference = run_reference(session)
        if reference is None:
            return None
        make_folder(folder, path, session, *reference)
    except Exception:  # refused, or values that no file holds: sparse tensors, maps
        return None
    return tolerances(path, reference[1])


def check(sardonyx, path, loads):
    """None, or why it failed."""
    with tempfile.TemporaryDirectory() as folder:
        tolerance = make_case(folder, path) if loads else None
        if tolerance is None:
            code, line = command([sardonyx, "run", path])
            return None if code in (0, 1, 2, 3, 4) else f"exit code {code}: {line}"
        code, line = command([sardonyx, "test", folder, *tolerance])
    return None if code == 0 else re.sub(r"^FAILED [^:]*: ", "", line) or f"exit code {code}"


def read_expected():
    with open(os.path.join(os.path.dirname(__file__), "ort_models_expected.tsv"), encoding="utf-8") as f:
        return dict(line.rstrip("\n").split("\t", 1) for line in f if line.strip())


def main():
    sardonyx, folder = sys.argv[1:3]
    expected, listing = read_expected(), "--list" in sys.argv
    passed = failed = 0
    with open(f"{folder}/MANIFEST.tsv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows:
        name = row["path"]
        why = check(sardonyx, f"{folder}/{name}", row["ort_1.31.1_cpu_loads"] == "yes")
        if listing and why:
            print(f"{name}\t{why}", flush=True)
        if (why is None) == (name not in expected):
            passed += 1
            continue
        failed += 1
        if not listing:
            print("FAILED", name, why or "passes, though ort_models_expected.tsv lists it", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
