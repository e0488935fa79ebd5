"""ort_fusions_check.py SARDONYX ORT_MODELS: what ONNX Runtime's own fusion tests expect of their models, we fuse too.

MANIFEST.tsv holds the counts that those tests assert. Each model is optimized here; there must be at least as many of
each operator that we write, and the file must load in ONNX Runtime if the model does. Attention may be written as
MultiHeadAttention, which it is whenever keys are cached. EXCEPTIONS lists what is different and why; one that is no
longer needed fails. Closes with "N passed, N failed".
"""
import collections
import csv
import os
import re
import subprocess
import sys
import tempfile

import onnx
import onnxruntime as ort

ort.set_default_logger_severity(4)
KINDS = {"Attention", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization",
         "LayerNormalization", "EmbedLayerNormalization", "MultiHeadAttention", "BiasGelu", "Gelu", "FastGelu",
         "QuickGelu", "FusedMatMul"}
FUSION, PYTHON = "onnxruntime/test/testdata/transform/fusion", "onnxruntime/test/python/transformers/test_data/models"
APPROXIMATE = "GeluApproximation, off by default in ONNX Runtime as well: FastGelu computes something else than Gelu"
NO_MODEL = "the weights [3,9] do not fit the input [2,3,1]: no engine can run it, and it is refused"
EXCEPTIONS = {
    f"{PYTHON}/gpt2_past.onnx": "24 of 25 LayerNormalizations are SkipLayerNormalization, as its test counts after them",
    "onnxruntime/test/testdata/transform/approximation/gelu.onnx": APPROXIMATE,
    "onnxruntime/test/testdata/transform/approximation/gelu_add_bias.onnx": APPROXIMATE,
    f"{FUSION}/skip_layer_norm_no_beta_with_cast.onnx": "not valid ONNX: declared float32, computed float16",
    f"{FUSION}/embed_layer_norm_format1.onnx": NO_MODEL,
    f"{FUSION}/embed_layer_norm_format2.onnx": NO_MODEL,
    f"{FUSION}/embed_layer_norm_format4.onnx": NO_MODEL,
}


def expected(text):
    """{operator: how many}; of several assertions about one operator, the largest."""
    wanted = collections.Counter()
    for name, count in re.findall(r"(?:com\.microsoft\.)?(\w+)\s*==?\s*(\d+)", text):
        if name in KINDS:
            wanted[name] = max(wanted[name], int(count))
    return +wanted


def found(path):
    counts = collections.Counter(n.op_type for n in onnx.load(path, load_external_data=False).graph.node)
    counts["Attention"] += counts["MultiHeadAttention"]
    return counts


def check(sardonyx, path, wanted, loads):
    """None, or what is missing."""
    with tempfile.TemporaryDirectory() as folder:
        output = f"{folder}/optimized.onnx"
        done = subprocess.run([sardonyx, "optimize", "--model_path", path, "--output", output], capture_output=True,
                              text=True)
        if done.returncode:
            return done.stderr.strip()
        counts = found(output)
        if loads:
            try:
                ort.InferenceSession(output, providers=["CPUExecutionProvider"])
            except Exception as error:  # whatever ONNX Runtime raises
                return f"does not load: {error}"
    missing = [f"{counts[kind]} of {number} {kind}" for kind, number in wanted.items() if counts[kind] < number]
    return ", ".join(missing) or None


def main():
    sardonyx, folder = sys.argv[1:3]
    passed = failed = 0
    with open(f"{folder}/MANIFEST.tsv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows:
        wanted = expected(row["ort_test_expectation"])
        if not wanted:
            continue
        why = check(sardonyx, os.path.join(folder, row["path"]), wanted, row["ort_1.31.1_cpu_loads"] == "yes")
        if (why is None) == (row["path"] not in EXCEPTIONS):
            passed += 1
            continue
        failed += 1
        print("FAILED", row["path"], why or "passes, though EXCEPTIONS lists it", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
