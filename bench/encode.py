"""encode.py SARDONYX MAKE_CHECKPOINT [--task encode|embed] [--threads 1] [--rounds 4] [--batch 32] [--layers N]
[--work DIR]: a corpus in tokens per second, against ONNX Runtime with padding and with batches sorted by length.

Random checkpoints of BERT-base's size with a SPLADE head (encode) or of MiniLM's (embed), a made-up vocabulary of BERT's
size, and 512 short documents of its words a round. We are the whole command, fed through a pipe: JSON lines in, tokenizing,
batches, JSON lines out. ONNX Runtime gets the tokens ready made and writes nothing, on the graph that its own transformers
optimizer makes of ours: "padded" in batches as the documents come, "sorted" the longest first, as fastembed and the like
do, each padded to its longest. The three take turns round by round, after a pause in which threads of the one before fall
asleep; quoted are medians, and medians of the pairwise ratios (ours / theirs; above 1 we are ahead). The numbers of the
first round are compared. Needs numpy, onnx, onnxruntime and sympy.
"""
import argparse
import itertools
import json
import logging
import os
import random
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime as ort

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY += ["".join(letters) for letters in itertools.islice(itertools.product("etaoinshrdlu", repeat=5), 30517)]
DOCUMENTS = 512  # a round: what the command takes in at once
BERT = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 30522, "max_position_embeddings": 512}
MINILM = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 384, "num_hidden_layers": 6,
          "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522, "max_position_embeddings": 512}


class Ours:
    name = "sardonyx"

    def __init__(self, args, graph):
        command = [args.sardonyx, args.task, "--model_path", graph, "--tokenizer", f"{args.work}/model", "--threads",
                   str(args.threads), "--max_length", "256"]
        if args.task == "encode":  # random weights leave nearly no term out; trained ones keep a hundred or two
            command += ["--top_k", "200"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, texts, tokens):
        self.process.stdin.write("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)).encode())
        self.process.stdin.flush()
        return [self.process.stdout.readline() for _ in texts]

    def numbers(self, answer, vocabulary):
        answer = json.loads(answer)
        if "embedding" in answer:
            return np.array(answer["embedding"])
        out = np.full(len(vocabulary), np.nan)
        for token, weight in answer["vector"].items():
            out[vocabulary[token]] = weight
        return out


class OnnxRuntime:
    def __init__(self, args, session, is_sorted):
        self.name, self.session, self.is_sorted = "ORT, sorted" if is_sorted else "ORT, padded", session, is_sorted
        self.batch, self.names = args.batch, {i.name for i in session.get_inputs()}

    def run_batch(self, rows):
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for r, row in enumerate(rows):
            ids[r, :len(row)], mask[r, :len(row)] = row, 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        out = self.session.run(None, {k: v for k, v in feed.items() if k in self.names})[0]
        if out.ndim == 2:
            return out
        mean = (out * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def run(self, texts, tokens):
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i])) if self.is_sorted else range(len(tokens))
        answer = [None] * len(tokens)
        for at in range(0, len(order), self.batch):
            batch = order[at:at + self.batch]
            for i, row in zip(batch, self.run_batch([tokens[i] for i in batch])):
                answer[i] = row
        return answer

    def numbers(self, answer, vocabulary):
        return answer


def dense_head(path, out):
    """Of a masked-LM graph, the SPLADE head as one dense row a text: the cheapest form that ONNX Runtime has."""
    import onnx
    from onnx import TensorProto, helper
    model = onnx.load(path)
    logits = model.graph.output[0].name
    model.graph.initializer.extend([helper.make_tensor("head_one", TensorProto.FLOAT, [], [1.0]),
                                    helper.make_tensor("head_axis", TensorProto.INT64, [1], [2])])
    steps = [("Cast", ["attention_mask"], "head_mask", {"to": TensorProto.FLOAT}),
             ("Unsqueeze", ["head_mask", "head_axis"], "head_column", {}),
             ("Relu", [logits], "head_relu", {}), ("Mul", ["head_relu", "head_column"], "head_kept", {}),
             ("ReduceMax", ["head_kept"], "head_max", {"axes": [1], "keepdims": 0}),
             ("Add", ["head_max", "head_one"], "head_more", {}),
             ("Log", ["head_more"], "weights", {})]
    model.graph.node.extend(helper.make_node(op, i, [o], name=o, **a) for op, i, o, a in steps)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch", "vocabulary"]))
    onnx.save(model, out)


def graphs(args, work):
    """Our graph, and ONNX Runtime's."""
    from onnxruntime.transformers import optimizer
    logging.disable(logging.WARNING)
    config = dict(BERT if args.task == "encode" else MINILM)
    config["num_hidden_layers"] = args.layers or config["num_hidden_layers"]
    with open(f"{work}/config.json", "w") as f:
        json.dump(config, f)
    subprocess.run([args.make_checkpoint, f"{work}/config.json", f"{work}/model"], check=True)
    with open(f"{work}/model/vocab.txt", "w") as f:
        f.writelines(word + "\n" for word in VOCABULARY)

    def convert(folder, *options):
        subprocess.run([args.sardonyx, "convert", "--model_name", f"{work}/model", "--output_dir", f"{work}/{folder}",
                        "--quiet", *options], check=True, stdout=subprocess.DEVNULL)
        return f"{work}/{folder}/model.onnx"

    plain = convert("plain")
    optimized = f"{work}/ort.onnx"
    optimizer.optimize_model(plain, model_type="bert", num_heads=12, hidden_size=config["hidden_size"],
                             opt_level=0).save_model_to_file(optimized)
    if args.task == "embed":
        return plain, optimized
    dense_head(optimized, f"{work}/ort-splade.onnx")
    return convert("splade", "--splade"), f"{work}/ort-splade.onnx"


def documents(args, dice):
    """Texts, most of them of 10 to 120 words, and their tokens."""
    texts = [" ".join(dice.choices(VOCABULARY[5:], k=min(200, max(2, int(dice.lognormvariate(3.5, 0.7)))))) for _ in range(DOCUMENTS)]
    told = subprocess.run([args.sardonyx, "tokenize", "--model_name", f"{args.work}/model", "--max_length", "256", "--text_lines"],
                          input="\n".join(texts), capture_output=True, text=True, check=True).stdout
    return texts, [json.loads(line)["ids"] for line in told.splitlines()]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in "sardonyx", "make_checkpoint":
        parser.add_argument(name)
    parser.add_argument("--task", choices=["encode", "embed"], default="encode")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--layers", type=int, help="other than the model's: for a quick try")
    parser.add_argument("--work", default=tempfile.mkdtemp())
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    ours, theirs = graphs(args, args.work)
    options, dice = ort.SessionOptions(), random.Random(3)
    options.intra_op_num_threads = args.threads
    session = ort.InferenceSession(theirs, options, providers=["CPUExecutionProvider"])
    engines = [Ours(args, ours), OnnxRuntime(args, session, False), OnnxRuntime(args, session, True)]
    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    rates = {e.name: [] for e in engines}
    for turn in range(args.rounds + 1):  # the first is not counted: caches fill, and answers are compared
        texts, tokens = documents(args, dice)
        answers = {}
        for engine in engines[turn % 3:] + engines[:turn % 3]:
            time.sleep(0.2)
            start = time.perf_counter()
            answers[engine.name] = engine.run(texts, tokens)
            rates[engine.name].append(sum(map(len, tokens)) / (time.perf_counter() - start))
        if turn == 0:
            apart = [np.nanmax(np.abs(engines[0].numbers(a, vocabulary) - b))
                     for a, b in zip(answers["sardonyx"], answers["ORT, sorted"])]
            print(f"largest difference to ONNX Runtime's numbers: {max(apart):.2g}")
    print(f"{args.task}, {args.threads} threads, batches of {args.batch}: tokens a second, median (ours / theirs)")
    for engine in engines:
        theirs = rates[engine.name][1:]
        ratio = statistics.median(a / b for a, b in zip(rates["sardonyx"][1:], theirs))
        print(f"  {engine.name:12} {statistics.median(theirs):8.0f}  ({ratio:.2f})")


if __name__ == "__main__":
    main()
