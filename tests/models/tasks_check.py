"""tasks_check.py SARDONYX ZOO: embed and classify against ONNX Runtime and NumPy: every pooling, dense layers, prompts; every
scoring, pairs, --top_k. The reference reads no file of ours: it follows sentence-transformers and transformers' pipeline."""
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime

program, zoo = os.path.realpath(sys.argv[1]), os.path.realpath(sys.argv[2])
passed = failed = 0
work = tempfile.mkdtemp()
random = np.random.default_rng(11)
TEXTS = ["what is AI?", "A river bank, and a search engine.", "sparse", "the text " * 9, "Ünïcode Words, IN CAPITALS"]


def check(condition, what):
    global passed, failed
    passed += bool(condition)
    failed += not condition
    if not condition:
        print("FAILED", what)


def run(*arguments, stdin="", code=0):
    got = subprocess.run([program, *map(str, arguments)], input=stdin, capture_output=True, text=True)
    check(got.returncode == code, f"{arguments}: exit {got.returncode}: {got.stderr}")
    return got


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def write(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(value, f)


class Model:
    """A zoo model, its tokenizer through `tokenize`, its numbers through ONNX Runtime."""

    def __init__(self, name, graph):
        self.path, self.folder = f"{zoo}/{name}/{graph}", f"{work}/{name}"
        shutil.copytree(f"{zoo}/{name}/checkpoint", self.folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
        self.session = onnxruntime.InferenceSession(self.path)

    def ids(self, text, pair=None):
        line = json.dumps({"text": text, **({"pair": pair} if pair is not None else {})})
        return lines(run("tokenize", "--model_name", self.folder, stdin=line).stdout)[0]

    def forward(self, text, pair=None):
        tokens = self.ids(text, pair)
        feed = {"input_ids": tokens["ids"], "attention_mask": [1] * len(tokens["ids"]), "token_type_ids": tokens["token_type_ids"]}
        feed = {i.name: np.array([feed[i.name]], np.int64) for i in self.session.get_inputs()}
        return self.session.run(None, feed)[0][0].astype(np.float64), len(tokens["ids"])


# ---- embed

def pool(x, mode, prompt):
    kept, places = x[prompt:], np.arange(1, len(x) + 1)[prompt:, None]
    return {"cls_token": lambda: x[0], "max_tokens": lambda: kept.max(0), "mean_tokens": lambda: kept.mean(0),
            "mean_sqrt_len_tokens": lambda: kept.sum(0) / math.sqrt(len(kept)),
            "weightedmean_tokens": lambda: (kept * places).sum(0) / places.sum(), "lasttoken": lambda: x[-1]}[mode]()


MODES = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
NAMES = {m: m if "len" in m else m.split("_")[0] for m in MODES}
ACTIVATIONS = {"linear.Identity": lambda x: x, "activation.Tanh": np.tanh, "activation.ReLU": lambda x: np.maximum(x, 0),
               "activation.GELU": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2}
PROMPTS = {"query": "search the text: ", "nothing": "", "null": None}


def save_module(folder, tensors, config):
    """Weights as safetensors."""
    header, at = {}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header).encode()
    write(f"{folder}/config.json", config)
    with open(f"{folder}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t.tobytes() for t in tensors.values()))


def save_dense(folder, weight, bias, activation, **more):
    save_module(folder, {"linear.weight": weight, **({} if bias is None else {"linear.bias": bias})},
                {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None,
                 "activation_function": f"torch.nn.modules.{activation}", **more})


def layer_norm(v, weight, bias):
    return (v - v.mean()) / math.sqrt(v.var() + 1e-5) * weight + bias


def embed_case(model, modes, layers, options=(), prompt="", include=True, lower=False, names=False, sub=""):
    """layers: "normalize", "norm" or an activation's name. names: modes are listed, not flagged. sub: the transformer's path."""
    f, width, dense = model.folder, 64 * len(modes), []
    modules = [(sub, "Transformer"), ("1_Pooling", "Pooling")]
    flags = {f"pooling_mode_{m}": m in modes for m in MODES}
    write(f"{f}/1_Pooling/config.json", {"word_embedding_dimension": 64, "include_prompt": include,
                                         **({"pooling_mode": [NAMES[m] for m in modes]} if names else flags)})
    for i, layer in enumerate(layers):
        if layer == "normalize":
            modules.append((f"{i + 2}_Normalize", "Normalize"))
            dense.append(None)
            continue
        if layer == "norm":
            modules.append((f"{i + 2}_LayerNorm", "LayerNorm"))
            weight, bias = (random.normal(0, 1, width).astype(np.float32) for _ in range(2))
            save_module(f"{f}/{i + 2}_LayerNorm", {"norm.weight": weight, "norm.bias": bias}, {"dimension": width})
            dense.append((weight, bias, layer_norm))
            continue
        out = 40 + i
        weight = random.normal(0, 0.2, (out, width)).astype(np.float32)
        bias = random.normal(0, 1, out).astype(np.float32) if i % 2 == 0 else None
        save_dense(f"{f}/{i + 2}_Dense", weight, bias, layer)
        modules.append((f"{i + 2}_Dense", "Dense"))
        dense.append((weight, bias, ACTIVATIONS[layer]))
        width = out
    write(f"{f}/modules.json", [{"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{t}"}
                                for i, (p, t) in enumerate(modules)])
    if sub:
        model.folder = f"{f}/{sub}"
        files = [name for name in os.listdir(f) if "." in name and name != "modules.json"]
        os.mkdir(model.folder)
        for name in files:
            shutil.move(f"{f}/{name}", model.folder)
    write(f"{f}/{sub}/sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": lower})
    write(f"{f}/config_sentence_transformers.json", {"prompts": PROMPTS, "default_prompt_name": None})
    got = lines(run("embed", "--model_path", model.path, "--tokenizer", f, *options, stdin="\n".join(TEXTS)).stdout)
    worst = 0
    for text, answer in zip(TEXTS, got):
        x, _ = model.forward((prompt + text).lower() if lower else prompt + text)
        if len(x) > 20:  # max_seq_length: the last token stays
            ids = model.ids(prompt + text)["ids"]
            feed = {"input_ids": ids[:19] + ids[-1:], "attention_mask": [1] * 20, "token_type_ids": [0] * 20}
            x = model.session.run(None, {i.name: np.array([feed[i.name]], np.int64) for i in model.session.get_inputs()})[0][0]
        skipped = 0 if include or not prompt else len(model.ids(prompt.strip())["ids"]) - 1
        order = modes if names else [m for m in MODES if m in modes]
        v = np.concatenate([pool(x.astype(np.float64), m, skipped) for m in order])
        for layer in dense:
            if layer is not None and layer[2] is layer_norm:
                v = layer_norm(v, layer[0], layer[1])
                continue
            v = v / np.linalg.norm(v) if layer is None else layer[2](layer[0].astype(np.float64) @ v + (0 if layer[1] is None else layer[1]))
        worst = max(worst, np.abs(v - answer["embedding"]).max() / np.abs(v).max())
    check(worst < 5e-6, f"embed {modes} {layers} {options}: {worst}")


model = Model("bert-model", "torchscript-op14.onnx")
for mode in MODES:
    embed_case(model, [mode], ["normalize"])
embed_case(model, MODES, [])
embed_case(model, ["mean_tokens", "cls_token"], list(ACTIVATIONS) + ["normalize"])
embed_case(model, ["mean_tokens"], ["normalize", "activation.Tanh"])
embed_case(model, ["mean_tokens"], ["norm", "activation.Tanh", "norm"])
embed_case(model, ["lasttoken", "cls_token", "mean_sqrt_len_tokens"], ["normalize"], names=True)
embed_case(model, ["mean_tokens"], [], lower=True)
for include in True, False:
    for mode in MODES:
        embed_case(model, [mode], [], ["--prompt_name", "query"], PROMPTS["query"], include)
embed_case(model, ["mean_tokens"], [], ["--prompt", "a river bank "], "a river bank ")
embed_case(model, ["mean_tokens"], [], ["--prompt_name", "nothing"])
embed_case(model, ["mean_tokens"], [], ["--prompt_name", "null"])
write(f"{model.folder}/config_sentence_transformers.json", {"prompts": PROMPTS, "default_prompt_name": "query"})
embed = ["embed", "--model_path", model.path, "--tokenizer", model.folder, "--text", TEXTS[0]]
said = run(*embed, "--prompt", PROMPTS["query"]).stdout
check(run(*embed).stdout == said, "the default prompt")
check(run(*embed, "--prompt", "").stdout != said, "no prompt instead of the default")
check("query, nothing, null" in run(*embed, "--prompt_name", "passage", code=2).stderr, "an unknown prompt is told")
refused = [([("", "Transformer")], "no pooling"), ([("", "Normalize")], "wrong side"), ([("", "CNN")], "not supported"),
           ([("../x", "Pooling")], "leaves the folder"), ([("9", "Pooling")], "no such file")]
for modules, sentence in refused:
    write(f"{model.folder}/modules.json", [{"path": p, "type": t} for p, t in modules])
    check(sentence in run(*embed, code=2).stderr, sentence)
write(f"{model.folder}/modules.json", [{"path": "1_Pooling", "type": "Pooling"}, {"path": "2_Dense", "type": "Dense"}])
save_dense(f"{model.folder}/2_Dense", np.zeros((4, 32), np.float32), None, "activation.Tanh")
check("does not fit" in run(*embed, code=2).stderr, "a dense layer of another width")
save_dense(f"{model.folder}/2_Dense", np.zeros((4, 64), np.float32), None, "activation.Tanh", use_residual=True)
check("use_residual" in run(*embed, code=2).stderr, "a dense layer with what is added to it")
old = Model("bert-mlm", "torchscript-op14.onnx")
embed_case(old, ["mean_tokens"], [], sub="0_Transformer")


# ---- classify

def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


model = Model("bert-classify-bin", "torchscript-op14.onnx")
config = json.load(open(f"{model.folder}/config.json"))
pairs = list(zip(TEXTS, TEXTS[::-1]))
classify = ["classify", "--model_path", model.path, "--tokenizer", model.folder]
for problem, scoring in ((None, softmax), ("single_label_classification", softmax), ("multi_label_classification", sigmoid),
                         ("regression", lambda x: x)):
    write(f"{model.folder}/config.json", {**config, "problem_type": problem, "id2label": {str(i): f"sort {i}" for i in range(5)}})
    json_lines = "".join(json.dumps({"id": i, "text": a, "pair": b}) + "\n" for i, (a, b) in enumerate(pairs))
    got = lines(run(*classify, stdin=json_lines).stdout)
    for (a, b), answer in zip(pairs, got):
        scores = scoring(model.forward(a, b)[0])
        order = [f"sort {i}" for i in np.argsort(-scores)]
        check([x["label"] for x in answer["labels"]] == order, f"{problem}: labels, best first")
        check(np.abs(np.sort(scores)[::-1] - [x["score"] for x in answer["labels"]]).max() < 1e-6, f"{problem}: scores")
    check(lines(run(*classify, stdin=json_lines.replace('"pair"', '"text_pair"')).stdout) == got, "text_pair")
    tsv = "".join(f"{i}\t{a}\t{b}\n" for i, (a, b) in enumerate(pairs))
    check(lines(run(*classify, stdin=tsv).stdout) == got, "pairs by TSV")
    best = lines(run(*classify, "--top_k", 2, stdin=tsv).stdout)
    check([x["labels"] for x in best] == [x["labels"][:2] for x in got], "--top_k")
    one = lines(run(*classify, "--text", pairs[0][0], "--pair", pairs[0][1]).stdout)[0]
    check(np.abs(np.array([x["score"] for x in one["labels"]]) - [x["score"] for x in got[0]["labels"]]).max() < 1e-6, "--pair")

shutil.rmtree(work)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
