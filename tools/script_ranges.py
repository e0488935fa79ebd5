#!/usr/bin/env python3
"""Writes tokenizer/script_tables.h: which characters the UnicodeScripts of pip's tokenizers (0.22.2) keeps together.

    tools/script_ranges.py > tokenizer/script_tables.h

The scripts are those of Unicode 9, Hiragana, Katakana and U+30FC counting as Han; the library itself is asked, so that
its exceptions come along. Script 0 is what has none: the space and what Unicode 9 does not know.
"""
from tokenizers.pre_tokenizers import UnicodeScripts

COLUMNS = 112
cutter = UnicodeScripts()


def together(a, b):
    return len(cutter.pre_tokenize_str(a + b)) == 1


def scripts():
    """For each code point its script: the index of the first character found with it."""
    known, last = [None], 0
    for point in range(0x110000):
        c = chr(point)
        if 0xD800 <= point < 0xE000 or (together("a", c) and together("\u4e2d", c)):
            yield 0
            continue
        if not last or not together(known[last], c):
            last = next((i for i in range(1, len(known)) if together(known[i], c)), len(known))
            known += [c] * (last == len(known))
        yield last


def main():
    print("/* script_tables.h: written by tools/script_ranges.py from pip's tokenizers 0.22.2; do not edit. */\n\n"
          "/* First character << 8 | script, until the next one. */\nstatic const uint32_t script_starts[] = {")
    line, before = "   ", None
    for point, script in enumerate(scripts()):
        if script == before:
            continue
        before = script
        item = f" 0x{point << 8 | script:x},"
        if len(line) + len(item) > COLUMNS:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")


main()
