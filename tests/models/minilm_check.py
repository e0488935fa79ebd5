"""minilm_check.py WORK GOLDEN.npy CHECKPOINT: distances of the embeddings in WORK to float64."""
import sys

import numpy as np


def main(work, golden_path, checkpoint):
    golden = np.load(golden_path)
    passed = failed = 0

    def bar(name, value, limit):
        nonlocal passed, failed
        good = bool(value <= limit)
        passed, failed = passed + good, failed + (not good)
        print(f"{'' if good else 'FAILED '}{name}: {value:.3g} (bar {limit:g})")

    fp32 = np.load(f"{work}/fp32.npy").astype(np.float64)
    bar("fp32: max |difference| to float64", np.abs(fp32 - golden).max(), 5e-7)
    for name, limit in (("int8", 2e-2), ("accurate", 7e-4)):
        int8 = np.load(f"{work}/{name}.npy").astype(np.float64)
        cosine = (int8 * golden).sum(1) / np.linalg.norm(int8, axis=1) / np.linalg.norm(golden, axis=1)
        bar(f"{name}: mean 1 - cosine to float64", (1 - cosine).mean(), limit)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main(*sys.argv[1:]))
