"""corpus_check.py SARDONYX ZOO [--calm]: a corpus through encode, embed and classify: forms of input and output, order, shards, bad
lines, runs killed by SIGKILL and resumed, memory. Needs NumPy."""
import ctypes
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np

program, zoo = os.path.realpath(sys.argv[1]), os.path.realpath(sys.argv[2])
calm = "--calm" in sys.argv  # kill little and be brief: for the sanitizers
passed = failed = 0
dice = random.Random(5)
WORDS = "the a search engine maps text to sparse vectors and lists quickly what is artificial river bank 3.14 ( x ) ü 日".split()


def check(condition, what):
    global passed, failed
    passed += bool(condition)
    failed += not condition
    if not condition:
        print("FAILED", what)


def run(*arguments, code=0, stdin=None, env=None):
    got = subprocess.run([program, *map(str, arguments)], input=stdin, capture_output=True, env={**os.environ, **(env or {})})
    check(got.returncode == code, f"{arguments}: exit {got.returncode}, expected {code}: {got.stderr.decode()[-300:]}")
    return got


def read(path):
    with open(path, "rb") as f:
        return f.read()


def lines(data):
    return [json.loads(line) for line in data.splitlines()]


def vectors(data):
    return {x["id"]: x["vector"] for x in lines(data)}


splade = f"{zoo}/bert-splade/checkpoint"
work = tempfile.TemporaryDirectory()
os.chdir(work.name)
run("convert", "--model_name", splade, "--output_dir", "models", "--splade")
encode = ["encode", "--model_path", "models/checkpoint.onnx", "--tokenizer", splade, "--threads", 1]
embed = ["embed", "--model_name", f"{zoo}/bert-model/checkpoint", "--threads", 1]
texts = [" ".join(dice.choices(WORDS, k=min(60, 1 + int(dice.expovariate(1 / 9))))) for _ in range(200 if calm else 1400)]
with open("docs.jsonl", "w") as f:
    f.writelines(json.dumps({"id": f"d{i}", "contents": t}) + "\n" for i, t in enumerate(texts))
with open("docs.tsv", "w") as f:
    f.writelines(f"d{i}\t{t}\n" for i, t in enumerate(texts))

# ---- forms of input: the same output whatever the file, in the order of the input, whatever the batches
run(*encode, "--input", "docs.jsonl", "--output", "all.jsonl")
whole = read("all.jsonl")
check([x["id"] for x in lines(whole)] == [f"d{i}" for i in range(len(texts))], "order")
jsonl, tsv = read("docs.jsonl"), read("docs.tsv")
for name, data in {"a.jsonl.gz": gzip.compress(jsonl), "a.tsv": tsv, "a.tsv.gz": gzip.compress(tsv[:9999]) + gzip.compress(tsv[9999:])}.items():
    with open(name, "wb") as f:
        f.write(data)
    check(run(*encode, "--input", name).stdout == whole, f"{name} as a file")
    check(run(*encode, "--input", "-", stdin=data).stdout == whole, f"{name} by a pipe")
check(run(*encode, "--input", "docs.jsonl", "--batch_tokens", 1).stdout == whole, "one text at a time")
run(*encode, "--input", "docs.jsonl", "--output", "z.jsonl.gz")
check(gzip.decompress(read("z.jsonl.gz")) == whole, "output compressed")
with open("cut.tsv.gz", "wb") as f:
    f.write(gzip.compress(tsv)[:-20])
check("cut off" in run(*encode, "--input", "cut.tsv.gz", code=2).stderr.decode(), "a cut gzip file is named")

# ---- shards
for numbers in (0, 1, 2), (1, 2, 3):
    parts = [run(*encode, "--input", "docs.jsonl", "--shard", f"{i}/3").stdout for i in numbers]
    check(sum(len(lines(p)) for p in parts) == len(texts), "shards overlap nowhere")
    check({k: v for p in parts for k, v in vectors(p).items()} == vectors(whole), "shards together are all")
third = run(*encode, "--input", "docs.jsonl", "--shard", "1/3").stdout
slurm = {"SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "3"}
check(run(*encode, "--input", "docs.jsonl", env=slurm).stdout == third, "a shard by SLURM")
kubernetes = {"JOB_COMPLETION_INDEX": "1", "JOB_COMPLETIONS": "3"}
check(run(*encode, "--input", "docs.jsonl", env=kubernetes).stdout == third, "a shard by Kubernetes")
run(*encode, "--input", "docs.jsonl", env={"JOB_COMPLETION_INDEX": "1"}, code=2)
run(*encode, "--input", "docs.jsonl", "--shard", "4/3", code=2)

# ---- bad lines
bad = b'{"id":"a","text":"one"}\nno JSON\n\n{"id":"c"}\n{"id":7,"contents":"two"}\n{"text":"without id"}\n'
with open("bad.jsonl", "wb") as f:
    f.write(bad)
got = run(*encode, "--input", "bad.jsonl", code=1)
records = lines(got.stdout)
check([x["id"] for x in records] == ["a", "1", "c", "7", "5"], "ids of good and bad lines")
check(["error" in x for x in records] == [False, True, True, False, False], "errors as records")
check(b"line 2" in got.stderr and b"2 of 5 documents were bad" in got.stderr, "bad lines are told")
check(all("vector" in x and "contents" in x for x in lines(run(*encode, "--input", "bad.jsonl", "--format", "anserini", code=1).stdout)),
      "bad lines keep Anserini's form")
run(*encode, "--input", "bad.jsonl", "--output", "bad.npz", "--format", "npz", code=1)
check(np.load("bad.npz")["indptr"][1] == np.load("bad.npz")["indptr"][3], "bad lines are empty rows")
run(*embed, "--input", "bad.jsonl", "--output", "bad.npy", code=1)
check([bool(x.any()) for x in np.load("bad.npy")] == [True, False, False, True, True], "bad lines are rows of zeros")

for name, data, ids in (("a byte order mark", b'\xef\xbb\xbf{"id":"a","text":"x"}\n', ["a"]), ("its TSV", b"\xef\xbb\xbfa\tx\n", ["a"]),
                        ("CRLF", b'{"id":"a","text":"x"}\r\n\r\n', ["a"]), ("blanks in front", b'  {"id":"a","text":"x"}', ["a"])):
    check([x["id"] for x in lines(run(*encode, "--input", "-", stdin=data).stdout)] == ids, name)
good = b'{"id":"good","text":"x"}\n'
for line, sentence in ((b'{"id":1.5,"text":"x"}', "whole number"), (b'{"id":"a\\u0000b","text":"x"}', "NUL"), (b'{"text":"\\ud83d"}', "Unicode"),
                       (b'{"text":"a\0"}', "control"), (b'{"text":"\xff"}', "0xff"), (b'{"text":["x"]}', "string"),
                       (b'{"id":"a","text":"' + b"w" * (64 << 20) + b'"}', "longer than 64 MB")):
    records = lines(run(*encode, "--input", "-", stdin=good + line + b"\n" + good, code=1).stdout)
    check(sentence in records[1]["error"] and [x["id"] for x in records[::2]] == ["good", "good"], sentence)

# ---- where results go: never over the input, a folder or a device
for command in encode, embed:
    check("is the input" in run(*command, "--input", "bad.jsonl", "--output", "./bad.jsonl", code=2).stderr.decode(), "the input as output")
    check("is a folder" in run(*command, "--input", "bad.jsonl", "--output", ".", code=2).stderr.decode(), "a folder as output")
    check("No space left" in run(*command, "--input", "docs.jsonl", "--output", "/dev/full", code=2).stderr.decode(), "a full device")
check(read("bad.jsonl") == bad and os.path.exists("/dev/full") and not os.path.isfile("/dev/full"), "the input and the device are as they were")
check("cannot be seen" in run(*encode, "--input", "docs.jsonl", "--output", "/dev/null", "--resume", code=2).stderr.decode(), "a device cannot resume")
check(run(*encode, "--input", "docs.jsonl", "--output", "/dev/stdout").stdout == whole, "stdout by its name")
os.mkfifo("pipe.npz")
run(*encode, "--input", "docs.jsonl", "--format", "npz", "--output", "pipe.npz", code=2)

# ---- forms of output
full = vectors(whole)
frame = {"[CLS]", "[SEP]", "[PAD]"}
anserini = lines(run(*encode, "--input", "docs.jsonl", "--format", "anserini").stdout)
pyserini = lines(run(*encode, "--input", "docs.jsonl", "--format", "anserini", "--compat", "pyserini").stdout)
for i, x in enumerate(anserini[:200]):
    v = full[x["id"]]
    java = {k: int(np.floor(np.float64(np.float32(w) / np.float32(5) * np.float32(256)) + 0.5)) for k, w in v.items() if k not in frame}
    python = {k: round(float(np.float32(w)) / 5 * 256) for k, w in v.items()}
    if i % 40 == 0:
        check(x["contents"] == texts[i], "contents")
    check(x["vector"] == {k: w for k, w in java.items() if w > 0}, "Anserini's impacts")
    check(pyserini[i]["vector"] == {k: w for k, w in python.items() if w > 0}, "Pyserini's impacts")
vocabulary = {k: i for i, k in enumerate(open(f"{splade}/vocab.txt").read().split("\n"))}
points = lines(run(*encode, "--input", "docs.jsonl", "--format", "qdrant").stdout)
check(len({p["id"] for p in points}) == len(texts), "Qdrant's ids")
for p in points[:50]:
    v = p["vector"]["sparse"]
    check(dict(zip(v["indices"], v["values"])) == {vocabulary[k]: w for k, w in full[p["payload"]["id"]].items()}, "Qdrant's vector")
for name, dropped in ("elasticsearch", set()), ("opensearch", {"[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"}):
    bulk = lines(run(*encode, "--input", "docs.jsonl", "--format", name).stdout)
    for i in range(0, 40, 2):
        expected = {k.replace(".", "__"): w for k, w in full[bulk[i]["index"]["_id"]].items() if k not in dropped}
        check(bulk[i + 1]["vector"] == expected, name)
vespa = lines(run(*encode, "--input", "docs.jsonl", "--format", "vespa").stdout)
check(vespa[3]["put"] == "id:docs:doc::d3" and vespa[3]["fields"]["vector"]["cells"] == full["d3"], "vespa")
run(*encode, "--input", "docs.jsonl", "--format", "npz", "--output", "all.npz")
npz = np.load("all.npz")
check(zipfile.ZipFile("all.npz").testzip() is None and npz["format"].item() == b"csr" and list(npz["shape"]) == [len(texts), len(vocabulary) - (
    "" in vocabulary)], "npz")
for i in range(0, len(texts), 100):
    at = slice(npz["indptr"][i], npz["indptr"][i + 1])
    expected = {vocabulary[k]: np.float32(w) for k, w in full[npz["ids"][i].decode()].items()}
    check(dict(zip(npz["indices"][at], npz["data"][at])) == expected, "a row of the npz")
top = vectors(run(*encode, "--input", "docs.jsonl", "--top_k", 5, "--threshold", 0.3).stdout)
for k in list(full)[:50]:
    heaviest = sorted((-w, vocabulary[t]) for t, w in full[k].items() if w > 0.3)[:5]
    check([(-w, vocabulary[t]) for t, w in top[k].items()] == heaviest, "--top_k and --threshold")
run(*embed, "--input", "docs.jsonl", "--output", "all.npy")
rows = np.array([x["embedding"] for x in lines(run(*embed, "--input", "docs.jsonl").stdout)], dtype=np.float32)
check((np.load("all.npy") == rows).all(), ".npy and JSON lines")


# ---- killed and resumed
def killed_and_resumed(command, output):
    started = time.time()
    run(*command, "--output", "calm." + output, code=1)
    span, kills = time.time() - started, 0
    while kills < (0 if calm else 10):
        process = subprocess.Popen([program, *map(str, command), "--output", output, "--resume"], stderr=subprocess.DEVNULL)
        try:
            process.wait(dice.uniform(0, 0.7 * span))
            os.remove(output)  # it was quicker than the dice: from the start again
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    run(*command, "--output", output, "--resume", code=1)
    check(read(output) == read("calm." + output), f"{output} after ten kills")
    run(*command, "--output", output, "--resume")  # nothing to do
    check(not [f for f in os.listdir() if f.startswith(output + ".")], f"{output}: nothing is left over")


with open("many.jsonl", "w") as f:
    f.writelines(json.dumps({"id": f"m{i}", "contents": texts[i % len(texts)]}) + "\n" if i % 99 else "bad\n" for i in range(1, 700 if calm else 3600))
many = ["--input", "many.jsonl", "--top_k", 30, "--quiet"]
for command, output in ((encode + many + ["--format", "jsonl"], "k.jsonl"), (encode + many, "k.jsonl.gz"),
                        (encode + many + ["--format", "npz"], "k.npz"), (embed + ["--input", "many.jsonl"], "k.npy")):
    killed_and_resumed(command, output)
with open("k.jsonl.part", "w") as f:
    f.write("half a li")
os.remove("k.jsonl")
run(*encode, *many, "--output", "k.jsonl", "--resume", code=1)
check(read("k.jsonl") == read("calm.k.jsonl"), "a torn line without a state is dropped")
process = subprocess.Popen([program, *map(str, encode), "--input", "many.jsonl", "--output", "o.jsonl"])
while not os.path.exists("o.jsonl.part.state"):
    time.sleep(0.01)
process.kill()
process.wait()
check("other options" in run(*encode, *many, "--output", "o.jsonl", "--resume", code=2).stderr.decode(), "other options are refused")
run(*encode, *many, "--resume", code=2)


# ---- memory: every window of 512 documents is the same, so that what grows has leaked. Without huge pages, which the
# kernel grants or not; 5 % of 16,000 documents are 0.2 KB each.
def most_memory(process):
    with open(f"/proc/{process.pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmHWM")).split()[1])


PR_SET_THP_DISABLE = 41
process = subprocess.Popen([program, *map(str, encode), "--input", "-", "--output", "flat.jsonl", "--top_k", "30"],
                           stdin=subprocess.PIPE, preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
seen = []
for block in range(0 if calm else 24):
    for i in range(block * 1024, block * 1024 + 1024):
        process.stdin.write(json.dumps({"id": i, "text": texts[i % 512]}).encode() + b"\n")
    process.stdin.flush()
    while block and (not os.path.exists("flat.jsonl.part.state") or json.loads(read("flat.jsonl.part.state"))["written"] < block * 1024):
        time.sleep(0.01)
    seen.append(most_memory(process))
process.stdin.close()
process.wait()
check(calm or seen[-1] < 1.05 * seen[8], f"memory is flat: at most {seen} KB after each thousand")

print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
