#!/usr/bin/env python3
"""readme_check.py BUILD: the README's commands, typed as it says, print what it says. Of a block in ``` the lines after
"$ " are run in an empty folder; what stands below them is the output, of which "..." leaves out the rest of a line."""
import pathlib
import re
import subprocess
import sys
import tempfile

REPO = pathlib.Path(__file__).resolve().parents[2]
WORD = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|\D")  # a number, or one character of anything else


def commands(text):
    """(command, expected lines) of every block that begins with "$ "."""
    for block in re.findall(r"^```\n(\$ .*?)^```", text, re.M | re.S):
        for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.M)[1:]:
            command, *said = part.splitlines()
            yield command, said


def alike(want, got):
    """The same character, or numbers that agree to 4 digits or are both as small as a rounding error."""
    if not (want[-1].isdigit() and got[-1].isdigit()):
        return want == got
    return abs(float(want) - float(got)) <= 1e-6 + 1e-4 * abs(float(want))


def same(want, got):
    want, dots, _ = want.partition("...")
    want, got = WORD.findall(want), WORD.findall(got)
    if dots:
        got = got[: len(want)]
    return len(want) == len(got) and all(map(alike, want, got))


def main():
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "tests").symlink_to(REPO / "tests")
        env = {"PATH": f"{pathlib.Path(sys.argv[1]).resolve()}:/usr/bin:/bin"}
        for command, want in commands((REPO / "README.md").read_text()):
            run = subprocess.run(command, shell=True, cwd=folder, env=env, capture_output=True, text=True)
            got = (run.stdout + run.stderr).splitlines()
            if run.returncode == 0 and len(want) == len(got) and all(map(same, want, got)):
                passed += 1
            else:
                failed += 1
                print(f"FAILED exit {run.returncode}: {command}", *(f"  got: {line[:200]}" for line in got), sep="\n")
    print(f"{passed} passed, {failed} failed")
    return failed > 0 or not passed


sys.exit(main())
