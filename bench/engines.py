"""engines.py ENGINE FILE THREADS: one peer in a process of its own, spoken to as `sardonyx bench --repeat_on_stdin` is:
prints "ready", then, for each line BxS or A,B,... (the lengths of a ragged batch), runs it once and prints the
milliseconds, for "load" those of the load (its library imported before). ENGINE is ort, openvino, ctranslate2 or torch;
ctranslate2 takes a folder of write_ctranslate2, torch a Hugging Face folder of BERT. All compute in float32 unless
the file is quantized. """
import json
import os
import sys
import time

import numpy as np


def batch_of(line):
    """Ids and mask, padded to the longest text."""
    if "x" in line:
        batch, longest = map(int, line.split("x"))
        lengths = [longest] * batch
    else:
        lengths = [int(n) for n in line.split(",")]
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return np.random.default_rng(1).integers(1, 900, mask.shape) * mask, mask


def feed_of(names, line):
    ids, mask = batch_of(line)
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: values[name] for name in names}


class Ort:
    def __init__(self, path, threads):
        import onnxruntime as ort
        self.start = time.perf_counter()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.types = {i.name: np.int32 if "int32" in i.type else np.int64 for i in self.session.get_inputs()}

    def prepare(self, line):
        feed = feed_of(self.types, line)
        return {name: value.astype(self.types[name]) for name, value in feed.items()}

    def run(self, feed):
        self.session.run(None, feed)


class OpenVino:
    def __init__(self, path, threads):
        import openvino
        self.start = time.perf_counter()
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        model = openvino.Core().compile_model(path, "CPU", options)
        self.names = [i.get_any_name() for i in model.inputs]
        self.request = model.create_infer_request()

    def prepare(self, line):
        return feed_of(self.names, line)

    def run(self, feed):
        self.request.infer(feed, share_inputs=True, share_outputs=True)


class CTranslate2:
    def __init__(self, path, threads):
        import ctranslate2
        self.start = time.perf_counter()
        self.encoder = ctranslate2.Encoder(path, device="cpu", compute_type="default", inter_threads=1,
                                           intra_threads=threads)

    def prepare(self, line):
        ids, mask = batch_of(line)
        return [row[:n].tolist() for row, n in zip(ids, mask.sum(1))]

    def run(self, texts):
        np.array(self.encoder.forward_batch(texts).last_hidden_state)


class Torch:
    """BERT's encoder by torch.nn.functional: no Python but this between its operators."""

    def __init__(self, path, threads):
        import torch
        self.torch, self.f = torch, torch.nn.functional
        torch.set_num_threads(threads)
        self.start = time.perf_counter()
        with open(f"{path}/config.json") as f:
            self.config = json.load(f)
        self.w = {name: torch.from_numpy(value) for name, value in read_safetensors(path).items()}
        for i in range(self.config["num_hidden_layers"]):
            name = f"encoder.layer.{i}.attention.self."
            for part in ("weight", "bias"):
                self.w[f"{name}qkv.{part}"] = torch.cat([self.w[f"{name}{x}.{part}"] for x in ("query", "key", "value")])

    def linear(self, x, name):
        return self.f.linear(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def norm(self, x, name):
        return self.f.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"],
                                 self.config["layer_norm_eps"])

    def prepare(self, line):
        return [self.torch.from_numpy(value) for value in batch_of(line)]

    def layer(self, x, mask, name):
        batch, length, width = x.shape
        heads = self.config["num_attention_heads"]
        qkv = self.linear(x, f"{name}.attention.self.qkv").view(batch, length, 3, heads, width // heads)
        mixed = self.f.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        x = self.norm(x + self.linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        wide = self.f.gelu(self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(x + self.linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def run(self, feed):
        ids, mask = feed
        with self.torch.inference_mode():
            table = "embeddings.{}_embeddings.weight".format
            x = self.f.embedding(ids, self.w[table("word")]) + self.w[table("position")][:ids.shape[1]]
            x = self.norm(x + self.w[table("token_type")][0], "embeddings.LayerNorm")
            seen = None if mask.all() else mask[:, None, None, :].bool()
            for i in range(self.config["num_hidden_layers"]):
                x = self.layer(x, seen, f"encoder.layer.{i}")


ENGINES = {"ort": Ort, "openvino": OpenVino, "ctranslate2": CTranslate2, "torch": Torch}


# ---- a checkpoint's weights ---------------------------------------------------------------------------------

def read_safetensors(folder):
    """Float32 weights by name, without a leading "bert."."""
    with open(f"{folder}/model.safetensors", "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = np.frombuffer(bytearray(f.read()), np.uint8)
    header.pop("__metadata__", None)
    return {name.removeprefix("bert."): data[slice(*t["data_offsets"])].view(np.float32).reshape(t["shape"])
            for name, t in header.items() if t["dtype"] == "F32"}


def write_ctranslate2(checkpoint, target, int8):
    """BERT's encoder as CTranslate2's own model."""
    from ctranslate2.specs import common_spec, transformer_spec
    w = read_safetensors(checkpoint)
    with open(f"{checkpoint}/config.json") as f:
        config = json.load(f)
    spec = transformer_spec.TransformerEncoderModelSpec(transformer_spec.TransformerEncoderSpec(
        config["num_hidden_layers"], config["num_attention_heads"], pre_norm=False,
        activation=common_spec.Activation.GELU, layernorm_embedding=True, num_source_embeddings=2,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD))

    def linear(part, *names):
        part.weight = np.concatenate([w[f"{n}.weight"] for n in names])
        part.bias = np.concatenate([w[f"{n}.bias"] for n in names])

    def norm(part, name):
        part.gamma, part.beta = w[f"{name}.weight"], w[f"{name}.bias"]

    encoder = spec.encoder
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = w["embeddings.word_embeddings.weight"]
    encoder.embeddings[1].weight = w["embeddings.token_type_embeddings.weight"]
    encoder.position_encodings.encodings = w["embeddings.position_embeddings.weight"]
    norm(encoder.layernorm_embedding, "embeddings.LayerNorm")
    for i, layer in enumerate(encoder.layer):
        name = f"encoder.layer.{i}"
        linear(layer.self_attention.linear[0], *[f"{name}.attention.self.{x}" for x in ("query", "key", "value")])
        linear(layer.self_attention.linear[1], f"{name}.attention.output.dense")
        norm(layer.self_attention.layer_norm, f"{name}.attention.output.LayerNorm")
        linear(layer.ffn.linear_0, f"{name}.intermediate.dense")
        linear(layer.ffn.linear_1, f"{name}.output.dense")
        norm(layer.ffn.layer_norm, f"{name}.output.LayerNorm")
    spec.register_vocabulary([str(i) for i in range(config["vocab_size"])])
    spec.config.unk_token, spec.config.layer_norm_epsilon = "0", config["layer_norm_eps"]
    spec.validate()
    spec.optimize(quantization="int8" if int8 else None)
    os.makedirs(target)
    spec.save(target)


def main():
    engine = ENGINES[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    load = time.perf_counter() - engine.start
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "load\n":
            print(f"{load * 1e3:.4f}", flush=True)
            continue
        work = engine.prepare(line.strip())
        start = time.perf_counter()
        engine.run(work)
        print(f"{(time.perf_counter() - start) * 1e3:.4f}", flush=True)


if __name__ == "__main__":
    main()
