"""merged_check.py SARDONYX ZOO: decoders exported once with a cache and once without, merged under one If, give in both
branches what ONNX Runtime computes; quantized with the folder they lie in, too, and `generate` takes that folder.
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


def run_here(sardonyx, path, inputs, names, *options):
    with tempfile.TemporaryDirectory() as work:
        arguments = []
        for name, array in inputs.items():
            np.save(f"{work}/{name}.npy", array)
            arguments.append(f"{name}={work}/{name}.npy")
        subprocess.run([sardonyx, "run", path, "--quiet", *options, "--output_dir", f"{work}/out", "--input", *arguments],
                       check=True, capture_output=True)
        return [np.load(f"{work}/out/{name}.npy") for name in names]


def close(got, want, bound):
    return got.shape == want.shape and np.abs(got - want).max(initial=0) <= bound * max(1, np.abs(want).max(initial=0))


def check_branches(sardonyx, path, case, bound, *options):
    """(branch, it agrees with ONNX Runtime)"""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    for cached in (False, True):
        inputs = make_inputs(session, case, cached)
        got = run_here(sardonyx, path, inputs, names, *options)
        good = all(close(a, b, bound) for a, b in zip(got, session.run(None, inputs)))
        yield "with a cache" if cached else "without a cache", good


def check_quantized(sardonyx, folder, work):
    subprocess.run([sardonyx, "quantize", "--model_path", folder, "--output", work], check=True, capture_output=True)
    for name in os.listdir(work):
        if name.endswith(".onnx") and ".ort-" not in name:
            ort.InferenceSession(f"{work}/{name}", providers=["CPUExecutionProvider"])
    command = [sardonyx, "generate", "--model_name", work, "--text", "a text", "--max_new_tokens", "4", "--num_beams", "1"]
    yield "generates in 8 bits", subprocess.run(command, capture_output=True).returncode == 0
    yield from check_branches(sardonyx, f"{work}/decoder_model_merged.onnx", folder, 2e-3, "--strict_onnx")


def check_model(sardonyx, folder):
    yield from check_branches(sardonyx, f"{folder}/decoder_model_merged.onnx", folder, 1e-5)
    with tempfile.TemporaryDirectory() as work:
        for name, good in check_quantized(sardonyx, folder, work):
            yield f"{name}, quantized", good


def main():
    sardonyx, zoo = sys.argv[1:3]
    passed = failed = 0
    for model in ("bart", "t5"):
        try:
            for name, good in check_model(sardonyx, f"{zoo}/{model}/optimum"):
                passed, failed = passed + good, failed + (not good)
                if not good:
                    print("FAILED", model, name, flush=True)
        except subprocess.CalledProcessError as error:
            failed += 1
            print("FAILED", model, error.stderr.decode().strip())
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
