#!/usr/bin/env python3
"""Writes random tokenizers with what Hugging Face's library makes of random texts, one tokenizer a line:

    pip install tokenizers==0.22.2
    tools/tokenizer_cases.py [SEED [TOKENIZERS [TEXTS]]] > tests/data/tokens/pipelines.jsonl

Normalizers, pre-tokenizers, models, decoders and added tokens are drawn and put together without regard to sense; the
vocabularies are trained on a few lines, so that they stay small. Left out is one thing that sardonyx may do otherwise:
Metaspace's "first" behind another pre-tokenizer, where a character that a normalizer put at the start of the text and a
pre-tokenizer cut off counts as the start, too, to the library.
"""
import json
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LINES = """What is AI? The study of "intelligent agents": any system that perceives its environment.
Retrieval models don't see what you've meant; they'll match 1,234 words (or 5.6%) of it.
Les élèves naïfs ont mangé des crêpes à Noël, déjà vu! Straße, Ångström, İstanbul, ΑΒΓ αβγ, Привет мир
日本語のテキスト 中文文本 한국어 텍스트 हिन्दी क्षेत्र עברית العربية ไทย
def f(x):\n\treturn x ** 2  # \u00bd \u2460 \ufb01 \U0001d400 \U0001f469\u200d\U0001f469 \U0001f1e9\U0001f1ea""".split("\n")
SPACES = [" ", "  ", "   ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2003", "\u2028", "\u200b", "\u0085", "\n\n "]
ODD = ["'s", "'re", "'ll", "'", "don't", "\u2581", "\u2581\u2581", "[MASK]", "</s>", "<s>", "<unk>", "\u200d", "e\u0301",
       "\u0915\u094d\u0937", "\ufb01", "\u2460", "\u00bd", "A\u030a", "``", "''", "<0x41>", "123", "\x00", "\x01", "\ufffd"]
BLOCKS = [(0x20, 0x7E)] * 6 + [(0xA0, 0x17F), (0x300, 0x36F), (0x370, 0x4FF), (0x590, 0x6FF), (0x900, 0xDFF),
          (0xE00, 0xFFF), (0x1100, 0x11FF), (0x1E00, 0x20CF), (0x2100, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x4EFF),
          (0xAC00, 0xACFF), (0xF900, 0xFFFF), (0x1F300, 0x1F6FF), (0x10000, 0x10FFF)]
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
PATTERNS = [r"[\p{L}&&[^aeiou]]+", r"[^[a-f]\d&&[^ ]]+", GPT2, GPT4, r"\w+", r"\s+", r"\d", r"[\p{P}]", r"x*", r"(?=[A-Z])",
            r"\b", r"^.", r"[\w']+"]
rng = random.Random(1)


def chance(p):
    return rng.random() < p


def text():
    out = []
    for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8])):
        kind = rng.randrange(4)
        if kind == 0:
            line = rng.choice(LINES)
            start = rng.randrange(len(line))
            out.append(line[start:start + rng.randrange(1, 30)])
        else:
            block = rng.choice(BLOCKS)
            out.append(rng.choice([rng.choice(SPACES), rng.choice(ODD),
                                   "".join(chr(rng.randint(*block)) for _ in range(rng.randrange(1, 4)))]))
    return "".join(out).encode("utf-8", "ignore").decode()


def normalizer():
    n = normalizers
    return rng.choice([
        n.NFC, n.NFD, n.NFKC, n.NFKD, n.Lowercase, n.StripAccents, n.Nmt,
        lambda: n.Strip(chance(.5), chance(.5)),
        lambda: n.Replace(rng.choice([" ", "a", "''"]), rng.choice(["", "\u2581", "x y"])),
        lambda: n.Replace(Regex(rng.choice([" {2,}", r"\s+", r"[aeiou]+", r"(?i)THE", r"x*"])), rng.choice([" ", "-"])),
        lambda: n.Prepend(rng.choice(["\u2581", "a"])),
        lambda: n.BertNormalizer(chance(.7), chance(.7), rng.choice([None, True, False]), chance(.5))])()


def pre_tokenizer(first):
    p = pre_tokenizers
    schemes = ["always", "never"] + ["first"] * first
    return rng.choice([
        p.BertPreTokenizer, p.Whitespace, p.WhitespaceSplit, p.UnicodeScripts,
        lambda: p.ByteLevel(add_prefix_space=chance(.5), use_regex=chance(.7)),
        lambda: p.Metaspace(prepend_scheme=rng.choice(schemes), split=chance(.7)),
        lambda: p.Punctuation(rng.choice(BEHAVIORS)), lambda: p.Digits(chance(.5)),
        lambda: p.Split(rng.choice([" ", "a", "'"]), rng.choice(BEHAVIORS), chance(.3)),
        lambda: p.Split(Regex(rng.choice(PATTERNS)), rng.choice(BEHAVIORS), chance(.3)),
        lambda: p.CharDelimiterSplit(rng.choice(" -a")), lambda: p.FixedLength(rng.randrange(1, 6))])()


def decoder():
    d = decoders
    return rng.choice([
        d.ByteLevel, d.BPEDecoder, d.Fuse, lambda: None,
        lambda: d.Metaspace(prepend_scheme=rng.choice(["always", "never", "first"])),
        lambda: d.WordPiece(cleanup=chance(.5)), lambda: d.CTC(pad_token="<s>", word_delimiter_token="e", cleanup=chance(.5)),
        lambda: d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)]),
        lambda: d.Replace(Regex(r"\s+|a"), "_")])()


def train(tokenizer, kind):
    special = ["<unk>", "<s>", "[UNK]", "[MASK]"]
    options = {"show_progress": False, "special_tokens": special, "vocab_size": rng.choice([90, 140])}
    if kind == "BPE":
        affix = {"continuing_subword_prefix": "##"} if chance(.25) else {"end_of_word_suffix": "</w>"} if chance(.3) else {}
        trainer = trainers.BpeTrainer(limit_alphabet=50, **affix, **options)
    elif kind == "Unigram":
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **options)
    elif kind == "WordPiece":
        trainer = trainers.WordPieceTrainer(limit_alphabet=50, **options)
    else:
        trainer = trainers.WordLevelTrainer(**options)
    tokenizer.train_from_iterator(rng.sample(LINES, 3) if kind == "Unigram" else LINES, trainer)


def spoil(model):
    """Options that no trainer sets."""
    if model["type"] == "BPE":
        model.update(unk_token=rng.choice(["<unk>", None]), fuse_unk=chance(.5), ignore_merges=chance(.3))
        if chance(.3):
            model["byte_fallback"] = True
            for byte in range(256):
                model["vocab"].setdefault(f"<0x{byte:02X}>", len(model["vocab"]))
    if model["type"] == "Unigram" and chance(.3):
        for entry in model["vocab"]:
            entry[1] = float(round(entry[1]))  # ties
    if model["type"] == "Unigram" and chance(.3):
        model["byte_fallback"] = True
        model["vocab"] += [[f"<0x{byte:02X}>", -5.0] for byte in range(256)]


def make():
    kind = rng.choice(["BPE", "BPE", "Unigram", "Unigram", "WordLevel", "WordPiece"])
    tokenizer = Tokenizer(getattr(models, kind)())
    tokenizer.normalizer = normalizers.Sequence([normalizer() for _ in range(rng.randrange(3))])
    parts = rng.randrange(kind != "Unigram", 3)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizer(i == 0) for i in range(parts)])
    train(tokenizer, kind)
    state = json.loads(tokenizer.to_str())
    if kind in ("WordLevel", "WordPiece"):
        state["model"]["unk_token"] = "[UNK]"
    spoil(state["model"])
    tokenizer = Tokenizer.from_str(json.dumps(state))
    drawn = decoder()
    if drawn:
        tokenizer.decoder = drawn
    for _ in range(rng.randrange(3)):
        token = AddedToken(rng.choice(["[MASK]", "the", "The", "<x y>", " sp", "\u00e9"]), single_word=chance(.3),
                           lstrip=chance(.3), rstrip=chance(.3), normalized=chance(.5), special=chance(.5))
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return Tokenizer.from_str(tokenizer.to_str())


def main(seed=1, tokenizers=80, texts=10):
    rng.seed(int(seed))
    written = 0
    while written < int(tokenizers):
        try:
            tokenizer = make()
            rows = []
            for _ in range(int(texts)):
                t = text()
                ids = tokenizer.encode(t).ids
                rows.append({"text": t, "ids": ids, "decoded": tokenizer.decode(ids)})
        except BaseException:  # the library panics on some of these, and some corpora are too small to train on
            continue
        print(json.dumps({"tokenizer": json.loads(tokenizer.to_str()), "rows": rows}, ensure_ascii=False,
                         separators=(",", ":")))
        written += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
