"""generate_check.py SARDONYX ZOO: greedy and beam-4 answers against those of transformers' generate() in
ZOO/{t5,bart}/generate.json: from three graphs, from the decoder without a past, and from the merged decoder."""
import json
import os
import subprocess
import sys
import tempfile

MODELS = ["t5", "bart"]
SETTINGS = {"greedy": ["--num_beams", "1"], "beam4": ["--num_beams", "4"]}
GRAPHS = {
    "three graphs": ["encoder_model", "decoder_model", "decoder_with_past_model"],
    "no past": ["encoder_model", "decoder_model"],
    "merged": ["encoder_model", "decoder_model_merged"],
}


def link_graphs(optimum, names, folder):
    """A folder with some of the graphs and all that is not a graph; False if one of them is not there."""
    sources = [os.path.join(optimum, name + ".onnx") for name in names]
    if not all(map(os.path.exists, sources)):
        return False
    sources += [os.path.join(optimum, f) for f in os.listdir(optimum) if f.endswith(".json")]
    for source in sources:
        os.symlink(os.path.abspath(source), os.path.join(folder, os.path.basename(source)))
    return True


def answers(sardonyx, folder, tokenizer, texts, options):
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    command = [sardonyx, "generate", "--model_name", folder, "--tokenizer", tokenizer, "--json", "--max_new_tokens", "20"]
    run = subprocess.run(command + options, input=lines, capture_output=True, text=True)
    if run.returncode:
        print(run.stderr.strip())
        return None
    return [json.loads(line) for line in run.stdout.splitlines()]


def strip_padding(ids, pad):
    """Rows of a batch are as long as the longest; the first id may be the padding's own."""
    end = len(ids)
    while end > 1 and ids[end - 1] == pad:
        end -= 1
    return ids[:end]


def main(sardonyx, zoo):
    passed = failed = 0
    for model in MODELS:
        with open(f"{zoo}/{model}/generate.json") as f:
            golden = json.load(f)
        with open(f"{zoo}/{model}/optimum/generation_config.json") as f:
            pad = json.load(f)["pad_token_id"]
        for graphs, names in GRAPHS.items():
            with tempfile.TemporaryDirectory() as folder:
                there = link_graphs(f"{zoo}/{model}/optimum", names, folder)
                for setting, options in SETTINGS.items():
                    ids, texts = golden["generate"][setting]
                    want = [{"ids": strip_padding(i, pad), "text": t} for i, t in zip(ids, texts)]
                    got = there and answers(sardonyx, folder, f"{zoo}/{model}/checkpoint", golden["texts"], options)
                    good = got == want
                    passed, failed = passed + good, failed + (not good)
                    print(f"{'' if good else 'FAILED '}{model}, {graphs}, {setting}" + ("" if good else f": {got}, not {want}"))
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main(*sys.argv[1:]))
