"""compare_ort.py SARDONYX MODEL.onnx [--threads N] [--rounds R] [--shapes 1x8,...] [--int8]: us against ONNX Runtime.

MODEL is an unoptimized file (what `sardonyx convert` writes). ONNX Runtime gets its own best form of it: optimized by its
transformers optimizer, and for --int8 quantized per channel by quantize_dynamic; we run our own optimized and quantized
files. Both run in turn, round by round, in one process each, so that a noisy machine hits both; quoted are the medians
and the median of the pairwise ratios (theirs / ours). Needs build/venv with onnxruntime and sympy.
"""
import argparse
import os
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime as ort


def ort_files(model, work, int8):
    from onnxruntime.transformers import optimizer
    path = f"{work}/ort-optimized.onnx"
    optimizer.optimize_model(model, model_type="bert", num_heads=0, hidden_size=0, opt_level=0).save_model_to_file(path)
    if not int8:
        return path
    from onnxruntime.quantization import QuantType, quantize_dynamic
    quantized = f"{work}/ort-int8.onnx"
    quantize_dynamic(path, quantized, per_channel=True, weight_type=QuantType.QInt8,
                     extra_options={"DefaultTensorType": 1})
    return quantized


def our_files(program, model, work, int8):
    path = f"{work}/ours-optimized.onnx"
    subprocess.run([program, "optimize", "--model_path", model, "--output", path], check=True, stdout=subprocess.DEVNULL)
    if not int8:
        return path
    quantized = f"{work}/ours-int8.onnx"
    subprocess.run([program, "quantize", "--model_path", path, "--output", quantized, "--per_channel"], check=True,
                   stdout=subprocess.DEVNULL)
    return quantized


class Ours:
    def __init__(self, program, path, threads):
        self.process = subprocess.Popen([program, "bench", path, "--threads", str(threads), "--repeat_on_stdin"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "ready"

    def run(self, batch, sequence):
        self.process.stdin.write(f"{batch}x{sequence}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


class Theirs:
    def __init__(self, path, threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads > os.cpu_count() else "1")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = self.session.get_inputs()

    def run(self, batch, sequence):
        generator = np.random.default_rng(1)
        feed = {}
        for port in self.inputs:
            value = np.ones((batch, sequence), np.int64)
            if port.name == "input_ids":
                value = generator.integers(1, 900, (batch, sequence))
            if port.name == "token_type_ids":
                value = np.zeros((batch, sequence), np.int64)
            feed[port.name] = value.astype(np.int32 if "int32" in port.type else np.int64)
        start = time.perf_counter()
        self.session.run(None, feed)
        return (time.perf_counter() - start) * 1e3


def settled(engine, size):
    """Milliseconds of one run, once the other engine's threads have stopped spinning for work."""
    time.sleep(0.1)
    return engine.run(*size)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sardonyx")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", default="1x8,1x32,1x128,8x128")
    parser.add_argument("--int8", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        theirs = Theirs(ort_files(args.model, work, args.int8), args.threads)
        ours = Ours(args.sardonyx, our_files(args.sardonyx, args.model, work, args.int8), args.threads)
        logs = []
        for shape in args.shapes.split(","):
            size = [int(n) for n in shape.split("x")]
            ours.run(*size), theirs.run(*size)
            pairs = [(settled(ours, size), settled(theirs, size)) for _ in range(args.rounds)]
            ratio = statistics.median(t / o for o, t in pairs)
            logs.append(np.log(ratio))
            print(f"{shape:>8}  ours {statistics.median(o for o, _ in pairs):9.2f} ms  ORT "
                  f"{statistics.median(t for _, t in pairs):9.2f} ms  ratio {ratio:5.2f}", flush=True)
        print(f"geometric mean of the ratios: {np.exp(np.mean(logs)):.2f}")


main()
