"""tokenizer_check.py SARDONYX FOLDER...: random texts through every tokenizer.json below the folders, against pip's tokenizers.

Ids and type ids of single texts, of pairs and of truncated ones, texts that are not UTF-8 (as Python's errors="replace"
reads them), ids back to text, and windows with padding as a file may configure them.
    --seed N         another draw (1)
    --texts N        texts a tokenizer (300)
    --pipelines N    as many random tokenizers of tools/tokenizer_cases.py beside the files (0). Two things are known to differ:
                     Metaspace's "first" where StripAccents took one half of a first character (U+0E33), and a prefix space
                     in front of what a pattern that matches nothing put at the start of a text.
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import tokenizer_cases  # noqa: E402

rng = tokenizer_cases.rng
PIECES = ["\u200d", "\ufe0f", "\U0001f469\u200d\U0001f4bb", "\U0001f1e9\U0001f1ea", "\U0001f3fd", "\u0301", "\u0327", "\u0345",
          "\u0e33", "\u1100\u1161\u11a8", "\ud7b0", "\u3099", "\uff76\uff9e", "\u0130", "\u1e9e", "\u03a3", "\u03c2", "\u01c5",
          "\ufb01", "\u2126", "\u00ad", "\u2066", "\u202e", "\ufeff", "\ufffd", "\u0000", "\u007f", "\u0085", "\u2028", "don't",
          "I'LL", "x'S", "```", "''", "\u2581", "<extra_id_7>", "[MASK]", "<mask>", "</s>", "[UNK]", "\r\n", "\t", " ", "  "]
PLANES = [(0x20, 0x7F)] * 4 + [(0, 0x7FF), (0x300, 0x36F), (0x800, 0xD7FF), (0x4E00, 0x9FFF), (0xE000, 0xFFFF),
          (0x10000, 0x1FFFF), (0x20000, 0x323AF), (0xE0000, 0xE01FF), (0x100000, 0x10FFFF)]


def part(tokens):
    kind = rng.randrange(7)
    if kind == 0:
        return "".join(chr(rng.randint(*rng.choice(PLANES))) for _ in range(rng.randrange(1, 6)))
    if kind == 1:
        return rng.choice(PIECES)
    if kind == 2:  # a long run
        return (rng.choice(PIECES) + chr(rng.randint(*rng.choice(PLANES))) * rng.randrange(2)) * rng.randrange(2, 70)
    if kind == 3:
        return tokenizer_cases.text()
    if kind == 4:
        block = rng.choice(PLANES)
        start = rng.randint(*block)
        return "".join(chr(min(start + rng.randrange(40), block[1])) for _ in range(rng.randrange(1, 12)))
    token = rng.choice(tokens)
    return rng.choice([token, token.upper(), token + " ", " " + token, token.removeprefix("##"), token.replace("\u2581", " ")])


def make_text(tokens):
    text = "".join(part(tokens) for _ in range(rng.choice([0, 1, 2, 3, 5, 9])))
    return text.encode("utf-8", "ignore").decode()


def make_bytes(tokens):
    """One line that need not be UTF-8."""
    line = bytearray(make_text(tokens).encode())
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(line) + 1)
        line[at:at + rng.randrange(3)] = rng.choice([b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f", b"\xed\xa0\x80", b"\xc0\xaf",
                                                     b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x96"])
    return bytes(line).replace(b"\n", b" ").replace(b"\r", b" ")


def tidy(text):
    """transformers' clean_up_tokenization."""
    for a, b in ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
                 (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")):
        text = text.replace(a, b)
    return text


def both(row):
    return (row["text"], row["pair"]) if "pair" in row else row["text"]


def encodes(tokenizer, row):
    """The library panics where a stride does not fit what truncation leaves of a text."""
    try:
        return tokenizer.encode_batch([both(row)])
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return None


class Check:
    def __init__(self, sardonyx):
        self.sardonyx, self.passed, self.failed = sardonyx, 0, 0

    def run(self, path, lines, *arguments):
        """Our answers to lines of bytes, or to rows."""
        given = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        out = subprocess.run([self.sardonyx, "tokenize", "--model_name", path, *arguments], input=given, capture_output=True)
        if out.returncode:
            print(path, arguments, out.stderr.decode(errors="replace")[-300:])
        return [json.loads(line) for line in out.stdout.split(b"\n") if line]

    def compare(self, path, what, rows, got, want):
        wrong = [i for i in range(len(rows)) if i >= len(got) or got[i] != want[i]]
        self.passed += len(rows) - len(wrong)
        self.failed += len(wrong)
        for i in wrong[:3]:
            mine = str(got[i])[:300] if i < len(got) else None
            print(f"FAILED {path} {what}\n  {rows[i]!r}\n  expected {str(want[i])[:300]}\n  got      {mine}")

    def file(self, path, count):
        config = pathlib.Path(path).with_name("tokenizer_config.json")
        config = json.loads(config.read_text()) if config.exists() else {}
        theirs = Tokenizer.from_file(path)
        theirs.no_truncation()
        theirs.no_padding()
        tokens = sorted(t for t in theirs.get_vocab() if t)
        self.texts(path, theirs, tokens, count, config)
        lines = [make_bytes(tokens) for _ in range(count // 2)]
        self.compare(path, "bytes", lines, [row["ids"] for row in self.run(path, [b + b"\n" for b in lines], "--text_lines")],
                     [theirs.encode(line.decode(errors="replace")).ids for line in lines])
        self.back(path, theirs, config, count)
        self.configured(path, theirs, tokens, count // 4)

    def texts(self, path, theirs, tokens, count, config):
        rows, want = [], []
        side = config.get("truncation_side", "right")
        for i in range(count):
            row = {"text": make_text(tokens)}
            if i % 2:
                row["pair"] = make_text(tokens)
            if i % 4 > 1:
                row["max_length"] = rng.randrange(8, 40)
                theirs.enable_truncation(row["max_length"], direction=side)
            e = theirs.encode(row["text"], row.get("pair"))
            theirs.no_truncation()
            rows.append(row)
            want.append({"ids": e.ids, "token_type_ids": e.type_ids})
        self.compare(path, "texts", rows, self.run(path, rows), want)

    def back(self, path, theirs, config, count):
        size = theirs.get_vocab_size()
        rows = [{"ids": [rng.randrange(size + 2) for _ in range(rng.randrange(20))]} for _ in range(count)]
        clean = tidy if config.get("clean_up_tokenization_spaces") else str
        for option in ([], ["--keep_special"]):
            self.compare(path, "decoding", rows, [row["text"] for row in self.run(path, rows, "--decode", *option)],
                         [clean(theirs.decode(row["ids"], skip_special_tokens=not option)) for row in rows])

    def configured(self, path, theirs, tokens, count):
        """A copy of the file that truncates and pads."""
        length = rng.randrange(8, 30)
        theirs.enable_truncation(length, stride=rng.randrange(3), strategy="longest_first",
                                 direction=rng.choice(["left", "right"]))
        theirs.enable_padding(direction=rng.choice(["left", "right"]), pad_id=1, pad_type_id=rng.randrange(2),
                              pad_to_multiple_of=rng.choice([None, 8]), length=rng.choice([None, length + 3]))
        rows = [{"text": make_text(tokens)[:200], **({"pair": make_text(tokens)[:99]} if i % 2 else {})} for i in range(count)]
        rows = [row for row in rows if encodes(theirs, row)]

        def flat(e):
            return {"ids": e.ids, "token_type_ids": e.type_ids, "attention_mask": e.attention_mask}
        want = [{**flat(e), "overflowing": [flat(o) for o in e.overflowing]} for e in theirs.encode_batch([both(row) for row in rows])]
        with tempfile.NamedTemporaryFile("w", suffix="tokenizer.json", encoding="utf-8") as copy:
            copy.write(theirs.to_str())
            copy.flush()
            got = self.run(copy.name, rows, "--as_configured")
        for window in (window for row in got for window in row["overflowing"]):
            window.pop("overflowing")  # ours is one list; theirs repeats windows of a pair below each other
        theirs.no_truncation()
        theirs.no_padding()
        self.compare(path, "configured", rows, got, want)

    def pipeline(self, number, count):
        try:
            theirs = tokenizer_cases.make()
            tokens = sorted(t for t in theirs.get_vocab() if t)
            rows = [make_text(tokens)[:2000] for _ in range(count)]
            want = [{"ids": e.ids, "text": theirs.decode(e.ids)} for e in map(theirs.encode, rows)]
        except BaseException as error:  # the library panics on some of these
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "tokenizer.json")
            theirs.save(path)
            got = self.run(path, [{"text": t} for t in rows])
            texts = self.run(path, [{"ids": w["ids"]} for w in want], "--decode")
            before = self.failed
            self.compare(f"pipeline {number}", "texts", rows,
                         [{"ids": a["ids"], "text": b["text"]} for a, b in zip(got, texts)], want)
            if self.failed > before:
                print("  " + re.sub(r'"vocab":.*', "", theirs.to_str())[:1500])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sardonyx")
    parser.add_argument("folders", nargs="+")
    for name, value in (("seed", 1), ("texts", 300), ("pipelines", 0)):
        parser.add_argument("--" + name, type=int, default=value)
    options = parser.parse_args()
    rng.seed(options.seed)
    check, seen = Check(options.sardonyx), set()
    for path in sorted(str(p) for folder in options.folders for p in pathlib.Path(folder).rglob("tokenizer.json")):
        digest = hashlib.sha256(pathlib.Path(path).read_bytes()).digest()
        if digest not in seen:
            seen.add(digest)
            check.file(path, options.texts)
    for number in range(options.pipelines):
        check.pipeline(number, options.texts // 4)
    print(f"{check.passed} passed, {check.failed} failed")
    return check.failed != 0


sys.exit(main())
