#!/usr/bin/env python3
"""Writes tokenizer/unicode_tables.h from two versions of the Unicode Character Database.

    tools/unicode_ranges.py UnicodeData-8.0.0.txt UnicodeData-9.0.0.txt > tokenizer/unicode_tables.h

Files: https://www.unicode.org/Public/8.0.0/ucd/UnicodeData.txt and the same for 9.0.0.
Hugging Face's tokenizers take general categories from Unicode 8 and combining marks from Unicode 9, whatever is
installed; utf8proc follows the newest standard. Ids must not depend on that, so these properties are frozen here.
"""
import sys

COLUMNS = 112


def read_categories(path):
    """Code point -> general category; <X, First> ... <X, Last> lines span a range."""
    category, first = {}, None
    for line in open(path, encoding="ascii"):
        code, name, kind = line.split(";")[:3]
        point = int(code, 16)
        if name.endswith(", First>"):
            first = point
            continue
        for c in range(first if name.endswith(", Last>") else point, point + 1):
            category[c] = kind
    return category


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(name, about, points):
    print(f"\n/* {about} */\nstatic const unicode_range {name}[] = {{")
    line = "   "
    for first, last in ranges(points):
        item = f" {{0x{first:x}, 0x{last:x}}},"
        if len(line) + len(item) > COLUMNS:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")


def main(path8, path9):
    v8, v9 = read_categories(path8), read_categories(path9)
    print("/* unicode_tables.h: written by tools/unicode_ranges.py from Unicode 8.0 and 9.0; do not edit. */\n"
          "typedef struct unicode_range {\n    uint32_t first, last;\n} unicode_range;")
    for name, about, kinds in (("punctuation_8", "General category P*, Unicode 8.0, beyond ASCII.", "P"),
                               ("nonspacing_8", "General category Mn, Unicode 8.0.", "Mn"),
                               ("other_8", "General categories Cc, Cf and Co, Unicode 8.0.", ("Cc", "Cf", "Co"))):
        table(name, about, [c for c, k in v8.items() if k.startswith(kinds) and (c > 127 or name != "punctuation_8")])
    table("mark_9", "General category M*, Unicode 9.0.", [c for c, k in v9.items() if k[0] == "M"])


if __name__ == "__main__":
    main(*sys.argv[1:])
