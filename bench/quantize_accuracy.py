"""quantize_accuracy.py SARDONYX CHECKPOINT TEXTS FLOAT64.npy [--ort] [--keep DIR]: what quantization and 16 bits cost.

Converts and optimizes a sentence-embedding checkpoint, quantizes it with every preset and embeds TEXTS with each file:
mean 1 - cosine against the float64 embeddings, share of the ten nearest neighbours that stay (the text itself left out),
megabytes, and milliseconds for 8 texts of 128 tokens on one thread. --ort also embeds with ONNX Runtime, one text at a
time, mean-pooled. fp16 is in software, to the same bytes, where the CPU has no AVX512-FP16. Example:
    bench/quantize_accuracy.py build/sardonyx all-MiniLM-L6-v2 texts.txt embeddings_float64.npy --ort
"""
import argparse
import json
import os
import subprocess
import tempfile

import numpy as np

PRESETS = ["accurate", "anserini", "avx512_vnni", "avx2", "arm64"]


def neighbours(vectors, count=10):
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1)[:, :count]


def compare(vectors, reference):
    """Mean 1 - cosine and the mean overlap of the top ten."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    loss = 1 - (unit * reference).sum(axis=1)
    pairs = zip(neighbours(unit), neighbours(reference))
    return loss.mean(), np.mean([len(set(a) & set(b)) / len(a) for a, b in pairs])


def sardonyx(options, *arguments):
    return subprocess.run([options.program, *arguments], check=True, capture_output=True, text=True).stdout


def embed_here(options, model, *flags):
    with tempfile.TemporaryDirectory() as work:
        sardonyx(options, "embed", "--model_path", model, "--tokenizer", options.checkpoint, "--input", options.texts,
                 "--output", f"{work}/v.npy", "--quiet", *flags)
        return np.load(f"{work}/v.npy")


def read_ids(options):
    lines = [line for line in open(options.texts, encoding="utf-8").read().split("\n") if line]
    for text in lines:
        tokens = sardonyx(options, "tokenize", "--model_name", options.checkpoint, "--text", text, "--json")
        yield np.array([json.loads(tokens)["ids"]], np.int64)


def embed_ort(model, texts):
    import onnxruntime as ort
    ort.set_default_logger_severity(3)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = []
    for ids in texts:
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        wanted = {i.name for i in session.get_inputs()}
        rows.append(session.run(None, {k: v for k, v in inputs.items() if k in wanted})[0][0].mean(axis=0))
    return np.array(rows)


def milliseconds(options, model, *flags):
    out = sardonyx(options, "bench", model, "--shape", "8x128", "--threads", "1", "--json", *flags)
    return json.loads(out)["results"][0]["median_ms"]


def has_bf16():
    with open("/proc/cpuinfo") as f:
        return "avx512_bf16" in f.read()


def report(options, label, model, reference, texts, *flags):
    here = compare(embed_here(options, model, *flags), reference)
    line = f"{label:28s} {os.path.getsize(model) / 1e6:7.2f} MB {milliseconds(options, model, *flags):7.1f} ms"
    line += f"   here {here[0]:.2e} {here[1]:.4f}"
    if texts:
        there = compare(embed_ort(model, texts), reference)
        line += f"   ONNX Runtime {there[0]:.2e} {there[1]:.4f}"
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("checkpoint")
    parser.add_argument("texts")
    parser.add_argument("reference")
    parser.add_argument("--ort", action="store_true")
    parser.add_argument("--keep", metavar="DIR", help="write the files here")
    options = parser.parse_args()
    reference = np.load(options.reference)
    texts = list(read_ids(options)) if options.ort else None
    with tempfile.TemporaryDirectory() as scratch:
        work = options.keep or scratch
        sardonyx(options, "convert", "--model_name", options.checkpoint, "--output_dir", work)
        raw = f"{work}/{os.path.basename(os.path.normpath(options.checkpoint))}.onnx"
        optimized = raw[:-5] + "-optimized.onnx"
        sardonyx(options, "optimize", "--model_path", raw)
        report(options, "float32, optimized", optimized, reference, texts)
        for precision in ["bf16", "fp16"] if has_bf16() else ["fp16"]:
            report(options, f"--precision {precision}", optimized, reference, None, "--precision", precision)
        for source, label in ((optimized, "optimized"), (raw, "raw")):
            for preset in PRESETS:
                path = f"{work}/{label}-{preset}.onnx"
                sardonyx(options, "quantize", "--model_path", source, "--preset", preset, "--output", path)
                report(options, f"{preset}, {label}", path, reference, texts)


if __name__ == "__main__":
    main()
