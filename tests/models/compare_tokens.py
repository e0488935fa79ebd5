"""compare_tokens.py SARDONYX TOKENIZER ROWS.jsonl: ids, segment ids and decoded text of every row. Standard library only."""
import json
import subprocess
import sys


def run(arguments, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    out = subprocess.run(arguments, input=text, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in out.split("\n") if line]


def main(sardonyx, tokenizer, path):
    with open(path, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    command = [sardonyx, "tokenize", "--model_name", tokenizer]
    encoded = run(command, rows)
    decoded = run(command + ["--decode"], [{"ids": row["ids"]} for row in rows])
    failed = abs(len(rows) - len(encoded)) + abs(len(rows) - len(decoded))
    for row, got, text in zip(rows, encoded, decoded):
        types = row.get("token_type_ids", got["token_type_ids"])
        if got["ids"] == row["ids"] and got["token_type_ids"] == types and text["text"] == row["decoded"]:
            continue
        failed += 1
        if failed <= 5:
            print("FAILED", json.dumps(row)[:300], "got", json.dumps(got)[:300], json.dumps(text)[:200])
    print(f"{len(rows) - failed} passed, {failed} failed")
    return failed != 0


sys.exit(main(*sys.argv[1:]))
