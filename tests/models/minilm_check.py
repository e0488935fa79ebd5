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
    int8 = np.load(f"{work}/int8.npy").astype(np.float64)
    cosine = (int8 * golden).sum(1) / np.linalg.norm(int8, axis=1) / np.linalg.norm(golden, axis=1)
    bar("int8 per channel: mean 1 - cosine to float64", (1 - cosine).mean(), 2e-2)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main(*sys.argv[1:]))
