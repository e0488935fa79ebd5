"""generate_check.py SARDONYX ZOO: greedy and beam-4 answers against those of transformers' generate() in
ZOO/{t5,bart}/generate.json: from optimum's three graphs, the decoder without a past, the merged decoder; from
our own conversion, on disk and in memory; and, from checkpoints, those of transformers 4.57.1 to a random
choice of settings in generation_config.json (tests/data/generate.jsonl), and of the 4.57.6 one from checkpoints of
random weights, one for each family (tests/data/generate_families.jsonl). And the text of ZOO/w2v2-ctc against the best tokens of its golden
logits, from the graphs and from the checkpoint."""
import array
import ast
import glob
import itertools
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import wave

MODELS = ["t5", "bart"]
SETTINGS = {"greedy": ["--num_beams", "1"], "beam4": ["--num_beams", "4"]}
GRAPHS = {
    "three graphs": ["encoder_model", "decoder_model", "decoder_with_past_model"],
    "no past": ["encoder_model", "decoder_model"],
    "merged": ["encoder_model", "decoder_model_merged"],
}


def link_graphs(optimum, names, folder):
    """A folder with some of the graphs and all that is not a graph; False if one of them is not there."""
    sources = [os.path.join(optimum, name + ".onnx") for name in names]
    if not all(map(os.path.exists, sources)):
        return False
    sources += [os.path.join(optimum, f) for f in os.listdir(optimum) if f.endswith(".json")]
    for source in sources:
        os.symlink(os.path.abspath(source), os.path.join(folder, os.path.basename(source)))
    return True


def answers(sardonyx, folder, tokenizer, texts, options, new_tokens=20):
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    command = [sardonyx, "generate", "--model_name", folder, "--tokenizer", tokenizer, "--json"]
    if new_tokens:
        options = ["--max_new_tokens", str(new_tokens), *options]
    run = subprocess.run(command + options, input=lines, capture_output=True, text=True)
    if run.returncode:
        print(run.stderr.strip())
        return None
    return [json.loads(line) for line in run.stdout.splitlines()]


def strip_padding(ids, pad):
    """Rows of a batch are as long as the longest; the first id may be the padding's own."""
    end = len(ids)
    while end > 1 and ids[end - 1] == pad:
        end -= 1
    return ids[:end]


def make_folder(sardonyx, model, way, folder):
    """The folder to generate from, made inside `folder` where it has to be; None if that fails."""
    if way in GRAPHS:
        return folder if link_graphs(f"{model}/optimum", GRAPHS[way], folder) else None
    if way == "checkpoint":
        return f"{model}/checkpoint"
    command = [sardonyx, "convert", "--model_name", f"{model}/checkpoint", "--output_dir", folder]
    merged = way == "converted, merged"
    run = subprocess.run(command + ["--merged"] * merged, capture_output=True, text=True)
    if merged and run.returncode == 0:  # what generate would take first
        os.remove(f"{folder}/checkpoint/decoder_model.onnx")
        os.remove(f"{folder}/checkpoint/decoder_with_past_model.onnx")
    return f"{folder}/checkpoint" if run.returncode == 0 else None


def check_answers(sardonyx, model):
    """(what was checked, it is good, what it gave) for each way to run the model."""
    with open(f"{model}/generate.json") as f:
        golden = json.load(f)
    with open(f"{model}/optimum/generation_config.json") as f:
        pad = json.load(f)["pad_token_id"]
    for way in [*GRAPHS, "checkpoint", "converted", "converted, merged"]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = make_folder(sardonyx, model, way, temporary)
            for setting, options in SETTINGS.items():
                ids, texts = golden["generate"][setting]
                want = [{"ids": strip_padding(i, pad), "text": t} for i, t in zip(ids, texts)]
                got = folder and answers(sardonyx, folder, f"{model}/checkpoint", golden["texts"], options)
                yield f"{model}, {way}, {setting}", got == want, got


def check_stream(sardonyx, model):
    """Words as they come make the text that comes at once."""
    for text in ["what is AI?", "\u65e5\u672c\u8a9e text"]:
        command = [sardonyx, "generate", "--model_name", f"{model}/checkpoint", "--text", text, "--num_beams", "1"]
        whole, words = (subprocess.run(command + more, capture_output=True).stdout for more in ([], ["--stream"]))
        yield f"{model}, --stream of {text}", whole == words, words


def read_lines(name):
    with open(os.path.join(os.path.dirname(__file__), "../data", name)) as f:
        return [json.loads(line) for line in f]


def check_families(sardonyx):
    """Each line: config.json of a checkpoint that make_checkpoint makes, and cases as below."""
    for line in read_lines("generate_families.jsonl"):
        family = line["checkpoint"]["model_type"]
        for way in ["checkpoint", "converted", "converted, merged"]:
            if family == "gpt2" and way != "checkpoint":
                continue
            with tempfile.TemporaryDirectory() as model:
                os.mkdir(f"{model}/checkpoint")
                config = f"{model}/checkpoint/config.json"
                with open(config, "w") as f:
                    json.dump(line["checkpoint"], f)
                make = os.path.join(os.path.dirname(sardonyx), "make_checkpoint")
                subprocess.run([make, config, f"{model}/checkpoint", "--seed", str(line["seed"])], check=True)
                folder = make_folder(sardonyx, model, way, f"{model}/converted")
                for number, case in enumerate(line["cases"]):
                    with open(f"{folder}/generation_config.json", "w") as f:
                        json.dump(case["config"], f)
                    got = answers(sardonyx, folder, f"{model}/checkpoint", case["texts"], [], None)
                    name = f"case {number + 1} of a random {family}, {way}"
                    yield name, got is not None and [g["ids"] for g in got] == case["ids"], got


def check_settings(sardonyx, zoo):
    """Each line: a model, its generation_config.json, texts, and the ids of each answer."""
    for number, case in enumerate(read_lines("generate.jsonl")):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = os.path.abspath(f"{zoo}/{case['model']}/checkpoint")
            for name in set(os.listdir(checkpoint)) - {"generation_config.json"}:
                os.symlink(f"{checkpoint}/{name}", f"{folder}/{name}")
            with open(f"{folder}/generation_config.json", "w") as f:
                json.dump(case["config"], f)
            for size in ["1", "16"]:
                got = answers(sardonyx, folder, checkpoint, case["texts"], ["--batch_size", size], None)
                name = f"settings {number + 1} of {case['model']}, batch size {size}"
                yield name, got is not None and [g["ids"] for g in got] == case["ids"], got


def read_npy(path):
    """Shape and values of a little-endian float32 file."""
    with open(path, "rb") as f:
        data = f.read()
    start = 10 + int.from_bytes(data[8:10], "little")
    return ast.literal_eval(data[10:start].decode())["shape"], array.array("f", data[start:])


def golden_texts(folder, case):
    """Of each row: the best token of each frame, runs collapsed, blanks dropped, "|" a space."""
    with open(f"{folder}/checkpoint/vocab.json") as f:
        token = {i: t for t, i in json.load(f).items()}
    (rows, frames, n), x = read_npy(f"{case}/output_logits.npy")
    frame = [x[i * n:(i + 1) * n] for i in range(rows * frames)]
    best = [token[max(range(n), key=f.__getitem__)] for f in frame]
    for r in range(rows):
        runs = [t for t, _ in itertools.groupby(best[r * frames:(r + 1) * frames])]
        yield "".join(" " if t == "|" else t for t in runs if t != "<pad>").strip()


def check_speech(sardonyx, folder):
    ways = [["--model_name", f"{folder}/checkpoint"]]
    for graph in ["torchscript-op14", "dynamo-op18"]:
        ways.append(["--model_path", f"{folder}/{graph}.onnx", "--tokenizer", f"{folder}/checkpoint"])
    for way, case in itertools.product(ways, sorted(glob.glob(f"{folder}/case_?"))):
        command = [sardonyx, "transcribe", *way, f"{case}/input_input_values.npy"]
        run = subprocess.run(command, capture_output=True, text=True)
        got = run.stdout.splitlines()
        good = bool(got) and got == list(golden_texts(folder, case))
        yield f"{os.path.basename(way[1])}, {case}", good, got or run.stderr


def check_long_speech(sardonyx, folder):
    """Windows, beams and times of a sound of twelve seconds. The model normalizes over all frames it sees and has random
    weights, so that windows may say a little else than the whole, but not at another time."""
    noise, sound = random.Random(3), f"{tempfile.mkdtemp()}/sound.wav"
    with wave.open(sound, "wb") as f:
        f.setparams((1, 2, 16000, 0, "NONE", ""))
        loud = [noise.uniform(0, 12000) for _ in range(24)]
        f.writeframes(struct.pack("<192000h", *(int(noise.gauss(0, 0.2) * loud[i // 8000]) for i in range(192000))))

    def said(*options):
        command = [sardonyx, "transcribe", "--model_name", f"{folder}/checkpoint", sound, "--json", *options]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    whole, words = said("--timestamps", "char"), said("--timestamps", "word")
    parts = said("--timestamps", "char", "--chunk_length_s", "4")
    yield "characters join to the text", "".join(c["text"] for c in whole["chunks"]).strip() == whole["text"], whole["text"]
    yield "words join to the text", " ".join(c["text"] for c in words["chunks"]).split() == words["text"].split(), words
    times = [t for c in whole["chunks"] for t in c["timestamp"]]
    yield "times rise", times == sorted(times) and times[-1] <= 12, times
    same = {(c["text"], round(c["timestamp"][0] / 0.02)) for c in whole["chunks"]}
    share = sum((c["text"], round(c["timestamp"][0] / 0.02)) in same for c in parts["chunks"]) / len(parts["chunks"])
    yield "windows say what the whole says", share > 0.8, share
    yield "beams", said("--num_beams", "4")["text"] != "", ""


def main(sardonyx, zoo):
    passed = failed = 0
    checks = [check_answers(sardonyx, f"{zoo}/{model}") for model in MODELS]
    checks += [check_stream(sardonyx, f"{zoo}/{model}") for model in MODELS]
    checks.append(check_settings(sardonyx, zoo))
    checks.append(check_families(sardonyx))
    checks.append(check_speech(sardonyx, f"{zoo}/w2v2-ctc"))
    checks.append(check_long_speech(sardonyx, f"{zoo}/w2v2-ctc"))
    for name, good, got in itertools.chain(*checks):
        passed, failed = passed + good, failed + (not good)
        print(name if good else f"FAILED {name}: {got}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main(*sys.argv[1:]))
