"""rewrite.py SARDONYX MAKE_CHECKPOINT MINILM [--rounds 5] [--work DIR]: what making files costs, and what our int8 costs to run.

First the seconds (median, least) and the peak memory of convert, optimize and quantize, of a BERT-base with a SPLADE head
(random weights) and of all-MiniLM-L6-v2 in the folder MINILM, in turn. Then MiniLM as `quantize` makes it by default, with
scales by row and column, against one scale a tensor (--weight_type QInt8): one thread, interleaved, the median of the ratios.
"""
import argparse
import json
import os
import statistics
import tempfile
import time

from compare import BERT, Engine, quiet

SHAPES = ["1x8", "1x32", "1x128", "8x128"]


def size(path):
    inside = [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else [path]
    return max(os.path.getsize(p) for p in inside) / 1e6


def cost(*command):
    """Seconds, and the most MB there ever were."""
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ,
                         file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, used.ru_maxrss * 1024 / 1e6


def rewrite(args, name, folder, *task):
    stem = f"{args.work}/{os.path.basename(folder)}"
    steps = {
        "convert": (folder, ["convert", "--model_name", folder, "--output_dir", args.work, "--quiet", *task]),
        "optimize": (f"{stem}.onnx", ["optimize", "--model_path", f"{stem}.onnx", "--output", f"{stem}-o.onnx"]),
        "quantize": (f"{stem}-o.onnx", ["quantize", "--model_path", f"{stem}-o.onnx", "--output", f"{stem}-q.onnx"]),
    }
    seen = {verb: [] for verb in steps}
    for _ in range(args.rounds):
        for verb, (_, words) in steps.items():
            seen[verb].append(cost(args.sardonyx, *words))
    for verb, (source, _) in steps.items():
        seconds, peak = zip(*seen[verb])
        print(f"{name:12} {verb:9} {statistics.median(seconds):6.2f} s (least {min(seconds):.2f}), peak {max(peak):5.0f} MB, "
              f"{max(peak) / size(source):.2f} of {size(source):.0f} MB")
    print(f"{name:12} int8      {size(f'{stem}-q.onnx'):.1f} MB")
    return stem


def race(args, stem):
    quiet(args.sardonyx, "quantize", "--model_path", f"{stem}-o.onnx", "--output", f"{stem}-t.onnx", "--weight_type", "QInt8")
    both = [Engine(kind, [args.sardonyx, "bench", f"{stem}-{kind}.onnx", "--threads", "1", "--repeat_on_stdin"])
            for kind in "qt"]
    for shape in SHAPES:
        ratios = []
        for r in range(5 * args.rounds):
            ms = {e.label: e.turn(shape) for e in (both if r % 2 else both[::-1])}
            ratios.append(ms["t"] / ms["q"])
        print(f"minilm int8 at {shape:6} scales a tensor / ours: {statistics.median(ratios):.3f}")
    for e in both:
        e.close()


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("sardonyx", type=os.path.abspath)
    parser.add_argument("make_checkpoint")
    parser.add_argument("minilm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        args.work = work
        with open(f"{work}/bert.json", "w") as f:
            json.dump({"architectures": ["BertForMaskedLM"], **BERT}, f)
        quiet(args.make_checkpoint, f"{work}/bert.json", f"{work}/bert")
        rewrite(args, "bert-splade", f"{work}/bert", "--splade")
        race(args, rewrite(args, "minilm", os.path.abspath(args.minilm), "--task", "feature-extraction"))


main()
