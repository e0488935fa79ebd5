"""merged_check.py SARDONYX ZOO: decoders exported once with a cache and once without, merged under one If, give in both
branches what ONNX Runtime computes.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime as ort

ort.set_default_logger_severity(4)


def load_case(folder):
    return {f[len("input_") : -len(".npy")]: np.load(f"{folder}/{f}") for f in os.listdir(folder) if f.startswith("input_")}


def make_inputs(session, folder, cached):
    """The case's inputs; without a cache, an empty one, as callers pass it."""
    stored = load_case(f"{folder}/decoder_model.case_0") | (load_case(f"{folder}/decoder_with_past_model.case_0") if cached else {})
    inputs = {}
    for port in session.get_inputs():
        if port.name == "use_cache_branch":
            inputs[port.name] = np.array([cached])
        elif port.name in stored:
            inputs[port.name] = stored[port.name]
        else:
            shape = [d if isinstance(d, int) else 0 for d in port.shape]
            inputs[port.name] = np.zeros([len(stored["input_ids"]), *shape[1:]], np.float32)
    return inputs


def run_here(sardonyx, path, inputs, names):
    with tempfile.TemporaryDirectory() as work:
        arguments = []
        for name, array in inputs.items():
            np.save(f"{work}/{name}.npy", array)
            arguments.append(f"{name}={work}/{name}.npy")
        subprocess.run([sardonyx, "run", path, "--quiet", "--output_dir", f"{work}/out", "--input", *arguments],
                       check=True, capture_output=True)
        return [np.load(f"{work}/out/{name}.npy") for name in names]


def close(got, want):
    return got.shape == want.shape and np.abs(got - want).max(initial=0) <= 1e-5 * max(1, np.abs(want).max(initial=0))


def main():
    sardonyx, zoo = sys.argv[1:3]
    passed = failed = 0
    for model in ("bart", "t5"):
        path = f"{zoo}/{model}/optimum/decoder_model_merged.onnx"
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        for cached in (False, True):
            inputs = make_inputs(session, os.path.dirname(path), cached)
            try:
                good = all(map(close, run_here(sardonyx, path, inputs, names), session.run(None, inputs)))
            except subprocess.CalledProcessError as error:
                good = False
                print(error.stderr.decode().strip())
            passed, failed = passed + good, failed + (not good)
            if not good:
                print("FAILED", model, "with a cache" if cached else "without a cache", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
