"""compare.py SARDONYX MAKE_CHECKPOINT MINILM [--models ...] [--threads 1,2] [--rounds 5] [--shapes ...]: whole models beside
other engines, as the tables of docs/benchmarks.md (standard output).

Models: BERT-base with a SPLADE head and its encoder alone, random weights; the real all-MiniLM-L6-v2 in the folder MINILM.
Every engine runs its own best form of the same weights: ours as `sardonyx optimize` and `quantize --preset accurate` write
it; ONNX Runtime as its transformers optimizer and quantize_dynamic per channel do; OpenVINO the file as converted, held
to float32; CTranslate2 its own model; PyTorch its functional operators. Each is a process of its own, and they run in
turn, round by round, every one first in some rounds, so that a noisy machine hits all: quoted are medians, and medians of
the ratios within a round (theirs / ours: above 1 we are ahead). A turn waits until the threads of the engine before
sleep; runs below 200 ms are done twice and the second counts, which finds its weights in the caches. Files are kept in build/bench.
"""
import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

from engines import write_ctranslate2

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.path.join(HERE, "..", "build", "bench")
RAGGED = ",".join(str(8 + i * 37 % 32 * 120 // 31) for i in range(32))  # 32 texts of 8 to 128 tokens
BERT = {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0}


def installed(library):
    return importlib.util.find_spec(library) is not None


def quiet(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# ---- files --------------------------------------------------------------------------------------------------

def checkpoint_of(args, name):
    """A folder of name's own; the encoder's and the SPLADE model's weights are the same ones."""
    folder = f"{WORK}/{name}"
    if os.path.exists(folder):
        return folder
    if name == "minilm":
        os.symlink(os.path.abspath(args.minilm), folder)
        return folder
    kind = "BertForMaskedLM" if name == "splade" else "BertModel"
    with open(f"{folder}.json", "w") as f:
        json.dump({"architectures": [kind], **BERT}, f)
    quiet(args.make_checkpoint, f"{folder}.json", folder)
    return folder


def once(path, write):
    if not os.path.exists(path):
        write(path)
    return path


def ort_optimize(source, target):
    from onnxruntime.transformers import optimizer
    optimizer.optimize_model(source, model_type="bert", num_heads=0, hidden_size=0,
                             opt_level=0).save_model_to_file(target)


def ort_quantize(source, target):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8,
                     extra_options={"DefaultTensorType": 1})


def make_files(args, name):
    """Path per kind of file, each written once."""
    folder = checkpoint_of(args, name)
    stem = f"{WORK}/{name}"
    task = ["--splade"] if name == "splade" else ["--task", "feature-extraction"]
    files = {"checkpoint": folder}
    files["onnx"] = once(f"{stem}.onnx", lambda path: quiet(
        args.sardonyx, "convert", "--model_name", folder, "--output_dir", WORK, *task))
    files["ours"] = once(f"{stem}-ours.onnx", lambda path: quiet(
        args.sardonyx, "optimize", "--model_path", files["onnx"], "--output", path))
    files["ours8"] = once(f"{stem}-ours8.onnx", lambda path: quiet(
        args.sardonyx, "quantize", "--model_path", files["ours"], "--preset", "accurate", "--output", path))
    files["ort"] = once(f"{stem}-ort.onnx", lambda path: ort_optimize(files["onnx"], path))
    files["ort8"] = once(f"{stem}-ort8.onnx", lambda path: ort_quantize(files["ort"], path))
    if name != "splade" and installed("ctranslate2"):
        for kind in ("ct2", "ct28"):
            files[kind] = once(f"{stem}-{kind}", lambda path: write_ctranslate2(folder, path, kind == "ct28"))
    return files


# ---- engines ------------------------------------------------------------------------------------------------

class Engine:
    def __init__(self, label, command):
        self.label = label
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=subprocess.DEVNULL)
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit(f"{label} does not start: {' '.join(command)}")
        self.load = self.run("load")

    def run(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def turn(self, line):
        time.sleep(0.1)
        first = self.run(line)
        return first if first > 200 else self.run(line)

    def peak(self):
        """MB, the most there ever was of the whole process."""
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(row.split()[1]) for row in f if row.startswith("VmHWM")) * 1024 / 1e6

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def commands(args, name, files, int8, threads):
    """(label, command line) of every engine that is installed; ours come first."""
    def ours(label, path, *options):
        return label, [args.sardonyx, "bench", path, "--threads", str(threads), "--repeat_on_stdin", "--skip_padding",
                       *options]

    def peer(label, engine, path):
        return label, [sys.executable, f"{HERE}/engines.py", engine, path, str(threads)]

    if int8:
        rows = [ours("sardonyx", files["ours8"]), peer("ONNX Runtime", "ort", files["ort8"])]
        return rows + ([peer("CTranslate2", "ctranslate2", files["ct28"])] if "ct28" in files else [])
    rows = [ours("sardonyx", files["ours"]), peer("ONNX Runtime", "ort", files["ort"])]
    if installed("openvino"):
        rows.append(peer("OpenVINO", "openvino", files["onnx"]))
    if "ct2" in files:
        rows.append(peer("CTranslate2", "ctranslate2", files["ct2"]))
    if name != "splade" and installed("torch"):
        rows.append(peer("PyTorch", "torch", files["checkpoint"]))
    if args.bf16:
        rows.append(ours("sardonyx, bf16", files["ours"], "--precision", "bf16"))
    if args.fp16:
        rows.append(ours("sardonyx, fp16", files["ours"], "--precision", "fp16"))
    return rows


# ---- measuring ----------------------------------------------------------------------------------------------

def measure(engines, line, rounds):
    """times[engine][round], every engine first in some rounds."""
    times = [[0.0] * rounds for _ in engines]
    for r in range(rounds):
        for i in range(len(engines)):
            which = (i + r) % len(engines)
            times[which][r] = engines[which].turn(line)
    return times


def milliseconds(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(title, header, rows):
    print(f"\n{title}\n\n| | {' | '.join(header)} |\n|{'---|' * (len(header) + 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def compare(args, name, files, int8, threads):
    engines = [Engine(*row) for row in commands(args, name, files, int8, threads)]
    shapes = args.shapes.split(",")
    rows, ratios = [[e.label] for e in engines], [[] for _ in engines]
    for shape in shapes:
        times = measure(engines, RAGGED if shape == "ragged" else shape, args.rounds)
        for i, own in enumerate(times):
            cell = milliseconds(statistics.median(own))
            if i:
                ratios[i].append(statistics.median(t / o for t, o in zip(own, times[0])))
                cell += f" ({ratios[i][-1]:.2f})"
            rows[i].append(cell)
    for i, row in enumerate(rows):
        row.append(f"{statistics.geometric_mean(ratios[i]):.2f}" if i else "")
    for e in engines:
        e.close()
    table(f"### {name}, {'int8' if int8 else 'float32'}, {threads} thread{'s'[:threads > 1]}",
          shapes + ["mean"], rows)


def cold(args, name, files, threads):
    """Load and first run of a file that is in the page cache, and the most memory, in processes that did nothing before."""
    rows = []
    for int8 in (False, True):
        found = {}
        for _ in range(args.rounds):
            for label, command in commands(args, name, files, int8, threads):
                e = Engine(label, command)
                first = e.run("1x128")
                found.setdefault(label, []).append((e.load, first, e.load + first, e.peak()))
                e.close()
        for label, values in found.items():
            medians = [statistics.median(column) for column in zip(*values)]
            rows.append([f"{label}{', int8' if int8 else ''}", *map(milliseconds, medians)])
    table(f"### {name}, cold, {threads} thread{'s'[:threads > 1]}", ["load ms", "first run 1x128 ms", "both", "peak MB"],
          rows)


def peak_at(args, name, files, line, threads):
    e = Engine(*commands(args, name, files, False, threads)[0])
    e.run(line)
    size = os.path.getsize(files["onnx"]) / 1e6
    print(f"\n{name} at {line}, float32, {threads} threads: peak {e.peak():.0f} MB; the file has {size:.0f} MB.")
    e.close()


def machine(args):
    with open("/proc/cpuinfo") as f:
        rows = dict(row.split(":", 1) for row in f.read().split("\n\n")[0].split("\n") if ":" in row)
    rows = {key.strip(): value.strip() for key, value in rows.items()}
    versions = [f"{name} {importlib.metadata.version(name)}"
                for name in ("onnxruntime", "openvino", "ctranslate2", "torch") if installed(name)]
    about = subprocess.run([args.sardonyx, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    flags = [flag for flag in rows.get("flags", rows.get("Features", "")).split()
             if flag.startswith(("avx", "fma", "amx", "asimd", "i8mm", "bf16"))]
    print(f"- {time.strftime('%Y-%m-%d')}, {rows.get('model name', 'CPU of unknown name')}, {os.cpu_count()} CPUs "
          f"({' '.join(flags)}); load average before the start {os.getloadavg()[0]:.1f}.")
    print(f"- {about.replace(chr(10), '; ')}. {', '.join(versions)}.")
    print(f"- Medians of {args.rounds} rounds, milliseconds, in brackets the ratio theirs / ours; mean: geometric, of the "
          f"ratios. ragged: 32 texts of 8 to 128 tokens, {sum(map(int, RAGGED.split(',')))} in all.")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("sardonyx")
    parser.add_argument("make_checkpoint")
    parser.add_argument("minilm")
    parser.add_argument("--models", default="splade,encoder,minilm")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default="1x8,1x32,1x128,8x128,ragged")
    args = parser.parse_args()
    os.makedirs(WORK, exist_ok=True)
    with open("/proc/cpuinfo") as f:
        flags = f.read()
    args.bf16, args.fp16 = "avx512_bf16" in flags, "avx512_fp16" in flags
    machine(args)
    for name in args.models.split(","):
        files = make_files(args, name)
        for threads in map(int, args.threads.split(",")):
            for int8 in (False, True):
                compare(args, name, files, int8, threads)
        cold(args, name, files, threads)
        if name == "splade":
            peak_at(args, name, files, "32x512", threads)


if __name__ == "__main__":
    main()
