"""ort_check.py SARDONYX ZOO: the files we write load in ONNX Runtime and mean there what they mean here.

For each encoder's checkpoint: convert; optimize and quantize that, in every combination; run each file here and in ONNX Runtime
on the zoo's cases. float32 agrees to 1e-5 relative, int8 (--strict_onnx) by cosine >= 0.999, and float32 also with PyTorch's
golden. Our own int8 recipe, with the row scales that ONNX Runtime has not, is closer to the golden than ONNX Runtime is.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

ENCODERS = {"bert", "distilbert", "roberta", "xlm-roberta", "camembert", "mpnet", "electra", "albert", "deberta-v2",
            "modernbert"}
INT8 = {"int8 ours": [], "int8": ["--preset", "anserini"], "int8 per channel": ["--per_channel"],
        "uint8": ["--weight_type", "QUInt8"], "int8 avx2": ["--preset", "avx2"]}
ort.set_default_logger_severity(4)


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def expect(self, good, what):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print("FAILED", what, flush=True)


def sardonyx(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"sardonyx {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def find_checkpoints(zoo):
    """Names of the folders that hold an encoder's checkpoint."""
    found = []
    for name in sorted(os.listdir(zoo)):
        config = f"{zoo}/{name}/checkpoint/config.json"
        if os.path.exists(config) and json.load(open(config))["model_type"] in ENCODERS:
            found.append(name)
    return found


def make_files(program, zoo, name, work):
    """{label: path} of every file made from one checkpoint."""
    splade = ["--splade"] if "splade" in name else []
    folder = f"{work}/{name}"
    sardonyx(program, "convert", "--model_name", f"{zoo}/{name}/checkpoint", "--output_dir", folder, *splade)
    files = {"fp32": f"{folder}/checkpoint.onnx", "optimized": f"{folder}/checkpoint-optimized.onnx"}
    sardonyx(program, "optimize", "--model_path", files["fp32"])
    for source in ("fp32", "optimized"):
        for label, options in INT8.items():
            path = f"{folder}/{source}-{label.replace(' ', '-')}.onnx"
            sardonyx(program, "quantize", "--model_path", files[source], "--output", path, *options)
            files[f"{source} {label}"] = path
    return files


def run_here(program, path, inputs, names, *flags):
    with tempfile.TemporaryDirectory() as out:
        arguments = []
        for key, array in inputs.items():
            np.save(f"{out}/in_{key}.npy", array)
            arguments.append(f"{key}={out}/in_{key}.npy")
        sardonyx(program, "run", path, "--quiet", *flags, "--output_dir", f"{out}/o", "--input", *arguments)
        return [np.load(f"{out}/o/{name}.npy") for name in names]


def close(a, b):
    """Within 1e-5 of the larger scale; shapes and types equal."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.size == 0 or np.abs(a.astype(np.float64) - b).max() <= 1e-5 * max(1.0, np.abs(b).max())


def cosine(a, b):
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30)


def dense(outputs, names, size=1 << 16):
    """A SPLADE pair as one vector, so that an entry that appears on one side only is a small difference."""
    if names != ["output_idx", "output_weights"]:
        return outputs
    vector = np.zeros(size)
    vector[outputs[0]] = outputs[1]
    return [vector]


def check_file(program, tally, label, path, cases, exact):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    for case, (inputs, golden) in cases.items():
        what = f"{label} {case}"
        there, here = session.run(None, inputs), run_here(program, path, inputs, names, "--strict_onnx")
        tally.expect(names[0] in golden, f"{what}: PyTorch's output is there")
        if exact:
            tally.expect(all(close(a, b) for a, b in zip(here, there)), f"{what}: here and in ONNX Runtime")
            tally.expect(all(close(a, golden[n]) for a, n in zip(here, names) if n in golden), f"{what}: here and PyTorch's golden")
            tally.expect(all(close(a, golden[n]) for a, n in zip(there, names) if n in golden), f"{what}: ONNX Runtime and golden")
        else:
            worst = min(cosine(a, b) for a, b in zip(dense(here, names), dense(there, names)))
            tally.expect(worst >= 0.999, f"{what}: cosine {worst:.6f} between here and ONNX Runtime")


def load_cases(folder):
    cases = {}
    for case in sorted(c for c in os.listdir(folder) if c.startswith("case_")):
        read = lambda kind: {f[len(kind):-4]: np.load(f"{folder}/{case}/{f}")
                             for f in os.listdir(f"{folder}/{case}") if f.startswith(kind)}
        cases[case] = (read("input_"), read("output_"))
    return cases


def check_header(tally, name, files):
    model = onnx.load(files["fp32"])
    onnx.checker.check_model(model, full_check=True)
    opset = {o.domain: o.version for o in model.opset_import}
    tally.expect(model.ir_version <= 9 and list(opset) == [""] and 14 <= opset[""] <= 18,
                 f"{name}: IR {model.ir_version} and opsets {opset}: Anserini's runtime takes IR <= 9, opset 14-18")
    domains = {o.domain for o in onnx.load(files["optimized"]).opset_import}
    tally.expect(domains == {"", "com.microsoft"}, f"{name}: the optimized file imports {domains}")


def main(program, zoo):
    tally = Tally()
    names = find_checkpoints(zoo)
    tally.expect(names, f"{zoo} holds checkpoints")
    for name in names:
        cases = load_cases(f"{zoo}/{name}")
        with tempfile.TemporaryDirectory() as work:
            try:
                files = make_files(program, zoo, name, work)
                check_header(tally, name, files)
                for label, path in files.items():
                    check_file(program, tally, f"{name} {label}", path, cases, exact="int8" not in label)
            except Exception as error:  # one broken family must not hide the others
                tally.expect(False, f"{name}: {type(error).__name__}: {str(error)[:500]}")
    print(f"{tally.passed} passed, {tally.failed} failed")
    return tally.failed != 0


sys.exit(main(*sys.argv[1:]))
