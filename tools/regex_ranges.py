#!/usr/bin/env python3
"""Writes tokenizer/regex_tables.h: what the patterns of pip's tokenizers (0.22.2, Oniguruma with Unicode 16) match that
Unicode 14 had not assigned, as members of a PCRE2 set.

    python3.11 tools/regex_ranges.py > tokenizer/regex_tables.h

Python 3.11's unicodedata is that of Unicode 14, as Debian 12's PCRE2 is. A newer PCRE2 knows some of these characters
itself, which does no harm.
"""
import unicodedata

from tokenizers import Regex, normalizers

COLUMNS = 108
SETS = ([(name, rf"\p{{{name}}}") for name in ("Lu", "Ll", "Lm", "Lo", "Mn", "Mc", "Nd", "No", "Pd", "Po", "Sm", "So", "Cf")] +
        [("ALPHABETIC_MARKS", r"[\p{Alphabetic}&&\p{M}]")] +
        [(name, rf"\p{{{name}}}") for name in ("Han", "Hiragana", "Katakana", "Latin", "Cyrillic", "Arabic", "Lowercase")])


def members(pattern, points):
    kept = normalizers.Replace(Regex(f"[^{pattern}]" if pattern[0] == "\\" else rf"(?!{pattern})(?m:.)"), "")
    return [ord(c) for c in kept.normalize_str("".join(map(chr, points)))]


def ranges(points):
    out = []
    for c in points:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def main():
    assert unicodedata.unidata_version == "14.0.0", "run by Python 3.11"
    new = [c for c in range(0x110000) if unicodedata.category(chr(c)) == "Cn"]
    print("/* regex_tables.h: written by tools/regex_ranges.py from pip's tokenizers 0.22.2; do not edit. */")
    for name, pattern in SETS:
        lines = [""]
        for first, last in ranges(members(pattern, new)):
            item = rf"\\x{{{first:x}}}" + (rf"-\\x{{{last:x}}}" if last > first else "")
            if len(lines[-1]) + len(item) > COLUMNS - 4:
                lines.append("")
            lines[-1] += item
        print(f"#define NEW_{name.upper()} \\\n" + " \\\n".join(f'    "{line}"' for line in lines))


main()
