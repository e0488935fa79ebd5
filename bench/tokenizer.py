#!/usr/bin/env python3
"""bench/tokenizer.py [SHARED]: tokenizing against pip's tokenizers, called from Python, both on one thread in the same run.

Texts are minilm/texts.txt of SHARED (default ../shared), repeated. Ours is timed inside build/release/tokenize_bench
(made by `make bench`), theirs around encode_batch. Ids are compared first. Ends with the time that opening a Unigram
tokenizer.json of 250,000 entries takes, which is made here.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, "build", "tokenizers-venv")
REPEAT, RUNS, ENTRIES = 100, 7, 250_000
PEER = """
import sys, time, json
from tokenizers import Tokenizer
t = Tokenizer.from_file(sys.argv[1]); t.no_truncation(); t.no_padding()
texts = open(sys.argv[2], encoding="utf-8").read().split("\\n")[:-1]
best = 1e9
for _ in range(int(sys.argv[3])):
    start = time.perf_counter(); out = t.encode_batch(texts); best = min(best, time.perf_counter() - start)
print(json.dumps({"seconds": best, "tokens": sum(len(e.ids) for e in out)}))
"""


def venv_python():
    python = os.path.join(VENV, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "tokenizers==0.22.2"], check=True)
    return python


def unigram_file(path):
    rng = random.Random(5)
    seen = {"<unk>": 0.0}
    while len(seen) < ENTRIES:
        word = "".join(rng.choice("bcdfghjklmnpqrstvwz") + rng.choice("aeiouy") + rng.choice(["", "n", "r", "s", "\u00e9"])
                       for _ in range(rng.randrange(1, 5)))
        if rng.random() < .4:
            start = rng.choice([0x400, 0x5D0, 0x905, 0xE01, 0x4E00, 0xAC00])
            word = "".join(chr(start + rng.randrange(30 if start < 0x4E00 else 3000)) for _ in range(rng.randrange(1, 5)))
        seen[("\u2581" if rng.random() < .6 else "") + word] = -4 - 14 * rng.random()
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": space, "decoder": space,
                   "post_processor": None, "model": {"type": "Unigram", "unk_id": 0, "vocab": list(seen.items())}},
                  f, ensure_ascii=False)


def ours(*arguments):
    out = subprocess.run([os.path.join(ROOT, "build/release/tokenize_bench"), *arguments], capture_output=True, text=True,
                         check=True).stdout
    return json.loads(out)


def main(shared="../shared"):
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    minilm = subprocess.run(["sh", os.path.join(ROOT, "tools/fetch_minilm.sh")], capture_output=True, text=True,
                            check=True).stdout.strip()
    zoo = os.path.join(shared, "zoo")
    with tempfile.TemporaryDirectory() as work:
        texts = os.path.join(work, "texts.txt")
        with open(os.path.join(shared, "minilm", "texts.txt"), encoding="utf-8") as f, \
             open(texts, "w", encoding="utf-8") as out:
            out.write(f.read() * REPEAT)
        size = os.path.getsize(texts) / 1e6
        for name, folder in (("MiniLM, WordPiece", minilm), ("RoBERTa, BPE", f"{zoo}/roberta-classify/checkpoint"),
                             ("T5, Unigram", f"{zoo}/t5/checkpoint")):
            mine = ours(folder, texts, str(RUNS))
            peer = json.loads(subprocess.run([venv_python(), "-c", PEER, folder + "/tokenizer.json", texts, str(RUNS)],
                                             capture_output=True, text=True, check=True, env=environment).stdout)
            same = "" if mine["tokens"] == peer["tokens"] else "  DIFFERENT TOKENS"
            print(f"{name:20} {size / mine['seconds']:7.1f} MB/s   tokenizers {size / peer['seconds']:5.2f} MB/s   "
                  f"{peer['seconds'] / mine['seconds']:5.1f} x{same}")
        big = os.path.join(work, "tokenizer.json")
        unigram_file(big)
        print(f"opening {ENTRIES:,} Unigram entries: {ours(big)['open'] * 1e3:.0f} ms")


main(*sys.argv[1:])
