"""rows.py SARDONYX FILE: every row of the operator table has run in a test: FILE has a line for each that did, as a
test build writes them (engine/rows.c)."""
import json
import subprocess
import sys


NEVER = {"ai.onnx Constant 1"}  # the loader makes it an initializer


def main():
    sardonyx, path = sys.argv[1:3]
    with open(path, encoding="utf-8") as f:
        ran = {line.strip() for line in f}
    table = json.loads(subprocess.run([sardonyx, "ops", "--json"], capture_output=True, check=True).stdout)
    rows = [f'{op["domain"]} {op["name"]} {op["since"]}' for op in table["operators"]]
    missing = [row for row in rows if row not in ran and row not in NEVER]
    for row in missing:
        print("FAILED no test runs", row)
    print(f"{len(rows) - len(missing)} passed, {len(missing)} failed")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
