"""generate.py LIBSARDONYX.so MAKE_CHECKPOINT SARDONYX [--models t5-small,bart-base] [--threads 1] [--batches 1,8] [--int8]
[--tokens 64] [--source 32] [--rounds 7] [--work DIR]: greedy tokens per second against CTranslate2 and ONNX Runtime.

Random checkpoints of the models' sizes, with the same weights in all three: our `convert` writes the graphs, which ONNX
Runtime runs too in a loop as optimum's (with_past graph, caches bound from output to input without a copy), and
CTranslate2 gets its own model through its specs. Every engine reads the same source tokens and writes the same number
of new ones; the first answers are compared, in float32. int8: our preset "accurate", quantize_dynamic, and CTranslate2's
int8. Engines run in turn, round by round, after a pause in which threads of the one before fall asleep; quoted are medians
of tokens per second and of the pairwise ratios (ours / theirs; above 1 we are ahead). Needs numpy, onnx, onnxruntime and
ctranslate2 in the Python that runs it; neither PyTorch nor transformers.
"""
import argparse
import ctypes as c
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

import numpy as np

T5 = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048,
      "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8, "vocab_size": 32128, "layer_norm_epsilon": 1e-6,
      "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "feed_forward_proj": "relu",
      "is_encoder_decoder": True, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
      "tie_word_embeddings": True}
BART = {"architectures": ["BartForConditionalGeneration"], "model_type": "bart", "d_model": 768, "encoder_layers": 6,
        "decoder_layers": 6, "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072, "vocab_size": 50265, "max_position_embeddings": 1024, "activation_function": "gelu",
        "scale_embedding": False, "is_encoder_decoder": True, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        "decoder_start_token_id": 2}
MODELS = {"t5-small": T5, "bart-base": BART}
GRAPHS = ["encoder_model", "decoder_model", "decoder_with_past_model"]


# ---- ours ---------------------------------------------------------------------------------------------------

class RunOptions(c.Structure):
    _fields_ = [("threads", c.c_int), ("isa", c.c_char_p), ("precision", c.c_char_p), ("no_optimize", c.c_bool),
                ("strict", c.c_bool), ("skip_padding", c.c_bool), ("brief", c.c_bool), ("profile", c.c_bool),
                ("max_steps", c.c_uint64)]


class TaskOptions(c.Structure):
    _fields_ = [("model", c.c_char_p), ("tokenizer", c.c_char_p), ("max_length", c.c_size_t),
                ("batch_tokens", c.c_size_t), ("run", RunOptions)]


class GenerateOptions(c.Structure):
    _fields_ = [("num_beams", c.c_size_t), ("max_length", c.c_size_t), ("min_length", c.c_size_t),
                ("max_new_tokens", c.c_size_t), ("min_new_tokens", c.c_size_t), ("no_repeat_ngram_size", c.c_size_t),
                ("length_penalty", c.c_double), ("repetition_penalty", c.c_double), ("early_stopping", c.c_int),
                ("num_return_sequences", c.c_size_t), ("forced_bos_token_id", c.c_int64), ("do_sample", c.c_bool),
                ("temperature", c.c_double), ("top_p", c.c_double), ("top_k", c.c_size_t), ("seed", c.c_uint64),
                ("first_text", c.c_size_t), ("on_token", c.c_void_p), ("context", c.c_void_p)]


class Text(c.Structure):
    _fields_ = [("data", c.c_char_p), ("length", c.c_size_t)]


class Generated(c.Structure):
    _fields_ = [("ids", c.POINTER(c.c_int64)), ("count", c.c_size_t)]


class Encoding(c.Structure):
    _fields_ = [("count", c.c_size_t), ("ids", c.POINTER(c.c_int64)), ("type_ids", c.POINTER(c.c_int64)),
                ("padding", c.c_size_t), ("overflow", c.c_void_p), ("overflow_count", c.c_size_t)]


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("message", c.c_char * 1024)]


class Ours:
    name = "sardonyx"

    def __init__(self, library, model, checkpoint, threads):
        self.lib, self.error, self.generator = library, Error(), c.c_void_p()
        options = TaskOptions(model.encode(), checkpoint.encode(), 0, 1 << 20, RunOptions(threads=threads))
        self.check(library.sdx_generator_open(c.byref(options), c.byref(self.generator), c.byref(self.error)))
        library.sdx_generator_defaults.restype = GenerateOptions
        library.sdx_generator_tokenizer.restype = c.c_void_p

    def check(self, status):
        if status:
            raise SystemExit(self.error.message.decode())

    def tokens(self, text):
        tokenizer, out = c.c_void_p(self.lib.sdx_generator_tokenizer(self.generator)), Encoding()
        self.check(self.lib.sdx_tokenizer_encode(tokenizer, text.encode(), c.c_size_t(len(text.encode())), None,
                                                 c.c_size_t(0), c.c_size_t(0), c.byref(out), c.byref(self.error)))
        return out.ids[:out.count]

    def run(self, texts, sources, count):
        options = self.lib.sdx_generator_defaults(self.generator)
        options.max_new_tokens = options.min_new_tokens = count
        given = (Text * len(texts))(*[Text(t.encode(), len(t.encode())) for t in texts])
        out = (Generated * len(texts))()
        self.check(self.lib.sdx_generator_run(self.generator, c.byref(options), given, c.c_size_t(len(texts)), out,
                                              c.byref(self.error)))
        return [o.ids[1:o.count] for o in out]


# ---- ONNX Runtime -------------------------------------------------------------------------------------------

class OnnxRuntime:
    name = "ONNX Runtime"

    def __init__(self, folder, config, threads):
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.ort, self.start, self.eos = ort, config["decoder_start_token_id"], config["eos_token_id"]
        self.encoder, self.first, self.past = (
            ort.InferenceSession(f"{folder}/{name}.onnx", options, providers=["CPUExecutionProvider"]) for name in GRAPHS)
        self.caches = [i.name for i in self.past.get_inputs() if i.name.startswith("past_key_values.")]

    def value(self, array):
        return self.ort.OrtValue.ortvalue_from_numpy(array)

    def decode(self, session, feed):
        """A run of one decoder: its outputs by name, left where they are."""
        binding = session.io_binding()
        for name in {i.name for i in session.get_inputs()}:
            binding.bind_ortvalue_input(name, feed[name])
        for output in session.get_outputs():
            binding.bind_output(output.name, "cpu")
        session.run_with_iobinding(binding)
        return dict(zip([o.name for o in session.get_outputs()], binding.get_outputs()))

    def run(self, texts, sources, count):
        ids = np.array(sources, np.int64)
        mask = np.ones_like(ids)
        states = self.encoder.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})[0]
        feed = {"encoder_attention_mask": self.value(mask), "encoder_hidden_states": self.value(states)}
        token, answer, session = np.full((len(ids), 1), self.start, np.int64), [], self.first
        for _ in range(count):
            feed["input_ids"] = self.value(token)
            out = self.decode(session, feed)
            logits = out["logits"].numpy()[:, -1]
            logits[:, self.eos] = -np.inf
            token = logits.argmax(-1)[:, None].astype(np.int64)
            answer.append(token[:, 0])
            for name in self.caches:
                present = out.get(name.replace("past_key_values", "present"))
                if present is not None:
                    feed[name] = present
            session = self.past
        return np.stack(answer, 1).tolist()


def ort_folder(folder, int8):
    if not int8:
        return folder
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process
    logging.disable(logging.WARNING)
    target = f"{folder}-ort-int8"
    os.makedirs(target, exist_ok=True)
    for name in GRAPHS:
        if not os.path.exists(f"{target}/{name}.onnx"):
            quantize_dynamic(f"{folder}/{name}.onnx", f"{target}/{name}.onnx", weight_type=QuantType.QInt8,
                             extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
    return target


# ---- CTranslate2 --------------------------------------------------------------------------------------------

def read_safetensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = np.frombuffer(f.read(), np.uint8)
    header.pop("__metadata__", None)
    return {name: data[slice(*t["data_offsets"])].view(np.float32).reshape(t["shape"]) for name, t in header.items()}


class Spec:
    """CTranslate2's specification, filled with a checkpoint's weights."""

    def __init__(self, weights):
        from ctranslate2.specs import common_spec, transformer_spec
        self.common, self.transformer, self.w = common_spec, transformer_spec, weights

    def linear(self, spec, *names):
        spec.weight = np.concatenate([self.w[n + ".weight"] for n in names])
        if names[0] + ".bias" in self.w:
            spec.bias = np.concatenate([self.w[n + ".bias"] for n in names])

    def norm(self, spec, name):
        spec.gamma = self.w[name + ".weight"]
        if name + ".bias" in self.w:
            spec.beta = self.w[name + ".bias"]

    def attention(self, spec, name, q, k, v, o, is_self):
        q, k, v, o = (f"{name}.{x}" for x in (q, k, v, o))
        self.linear(spec.linear[0], *([q, k, v] if is_self else [q]))
        if not is_self:
            self.linear(spec.linear[1], k, v)
        self.linear(spec.linear[-1], o)

    def embeddings(self, spec, name):
        (spec.embeddings[0] if isinstance(spec.embeddings, list) else spec.embeddings).weight = self.w[name]

    def t5(self, config):
        spec = self.transformer.TransformerSpec.from_config(
            config["num_layers"], config["num_heads"], pre_norm=True, activation=self.common.Activation.RELU,
            relative_attention_bias=True, rms_norm=True)
        shared = "shared.weight"
        for stack, part in (("encoder", spec.encoder), ("decoder", spec.decoder)):
            self.norm(part.layer_norm, f"{stack}.final_layer_norm")
            self.embeddings(part, shared)
            part.scale_embeddings = False
            for i, layer in enumerate(part.layer):
                block = f"{stack}.block.{i}.layer"
                self.attention(layer.self_attention, f"{block}.0.SelfAttention", "q", "k", "v", "o", True)
                self.norm(layer.self_attention.layer_norm, f"{block}.0.layer_norm")
                layer.self_attention.queries_scale = 1.0
                layer.self_attention.relative_attention_bias = \
                    self.w[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
                layer.self_attention.relative_attention_max_distance = \
                    np.dtype("int32").type(config["relative_attention_max_distance"])
                if stack == "decoder":
                    self.attention(layer.attention, f"{block}.1.EncDecAttention", "q", "k", "v", "o", False)
                    self.norm(layer.attention.layer_norm, f"{block}.1.layer_norm")
                    layer.attention.queries_scale = 1.0
                last = f"{block}.{2 if stack == 'decoder' else 1}"
                self.linear(layer.ffn.linear_0, f"{last}.DenseReluDense.wi")
                self.linear(layer.ffn.linear_1, f"{last}.DenseReluDense.wo")
                self.norm(layer.ffn.layer_norm, f"{last}.layer_norm")
        spec.decoder.projection.weight = self.w[shared]
        spec.decoder.scale_outputs = config["d_model"] ** -0.5
        return spec

    def bart(self, config):
        spec = self.transformer.TransformerSpec.from_config(
            config["encoder_layers"], config["encoder_attention_heads"], pre_norm=False,
            activation=self.common.Activation.GELU, layernorm_embedding=True)
        shared = next(n for n in ("model.shared.weight", "model.encoder.embed_tokens.weight") if n in self.w)
        for stack, part in (("encoder", spec.encoder), ("decoder", spec.decoder)):
            self.embeddings(part, shared)
            part.scale_embeddings = config["scale_embedding"]
            part.position_encodings.encodings = self.w[f"model.{stack}.embed_positions.weight"][2:]
            self.norm(part.layernorm_embedding, f"model.{stack}.layernorm_embedding")
            for i, layer in enumerate(part.layer):
                block = f"model.{stack}.layers.{i}"
                names = ["q_proj", "k_proj", "v_proj", "out_proj"]
                self.attention(layer.self_attention, f"{block}.self_attn", *names, True)
                self.norm(layer.self_attention.layer_norm, f"{block}.self_attn_layer_norm")
                if stack == "decoder":
                    self.attention(layer.attention, f"{block}.encoder_attn", *names, False)
                    self.norm(layer.attention.layer_norm, f"{block}.encoder_attn_layer_norm")
                self.linear(layer.ffn.linear_0, f"{block}.fc1")
                self.linear(layer.ffn.linear_1, f"{block}.fc2")
                self.norm(layer.ffn.layer_norm, f"{block}.final_layer_norm")
        spec.decoder.projection.weight = self.w.get("lm_head.weight", self.w[shared])
        return spec


def write_ctranslate2(checkpoint, config, target):
    spec = getattr(Spec(read_safetensors(f"{checkpoint}/model.safetensors")), config["model_type"])(config)
    tokens = [str(i) for i in range(config["vocab_size"])]
    tokens[config["eos_token_id"]] = "</s>"
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.eos_token, spec.config.unk_token = "</s>", tokens[3]
    spec.config.decoder_start_token = tokens[config["decoder_start_token_id"]]
    spec.config.bos_token = spec.config.decoder_start_token
    if config["model_type"] == "t5":
        spec.config.layer_norm_epsilon = config["layer_norm_epsilon"]
    spec.validate()
    spec.optimize()
    os.makedirs(target)
    spec.save(target)


class CTranslate2:
    name = "CTranslate2"

    def __init__(self, folder, config, threads, int8):
        import ctranslate2
        self.translator = ctranslate2.Translator(folder, device="cpu", compute_type="int8" if int8 else "float32",
                                                 inter_threads=1, intra_threads=threads)
        self.eos = config["eos_token_id"]

    def token(self, i):
        return "</s>" if i == self.eos else str(i)

    def run(self, texts, sources, count):
        source = [[self.token(i) for i in ids] for ids in sources]
        results = self.translator.translate_batch(source, beam_size=1, min_decoding_length=count,
                                                  max_decoding_length=count, max_batch_size=0)
        return [[int(t) if t != "</s>" else self.eos for t in r.hypotheses[0]] for r in results]


# ---- measuring ----------------------------------------------------------------------------------------------

def make_folders(args, name, work):
    """Checkpoint, graphs, our int8 graphs and CTranslate2's model, each made once."""
    config, checkpoint, graphs = MODELS[name], f"{work}/{name}", f"{work}/onnx/{name}"
    if not os.path.exists(graphs):
        with open(f"{work}/{name}.json", "w") as f:
            json.dump(config, f)
        subprocess.run([args.make_checkpoint, f"{work}/{name}.json", checkpoint], check=True)
        subprocess.run([args.sardonyx, "convert", "--model_name", checkpoint, "--output_dir", f"{work}/onnx",
                        "--quiet"], check=True, stdout=subprocess.DEVNULL)
        write_ctranslate2(checkpoint, config, f"{work}/{name}-ct2")
    int8 = f"{graphs}-int8"
    if args.int8 and not os.path.exists(int8):
        os.makedirs(int8)
        shutil.copy(f"{graphs}/config.json", int8)
        for graph in GRAPHS:
            subprocess.run([args.sardonyx, "quantize", "--model_path", f"{graphs}/{graph}.onnx", "--output",
                            f"{int8}/{graph}.onnx", "--preset", "accurate"], check=True, stdout=subprocess.DEVNULL)
    return config, checkpoint, graphs, int8 if args.int8 else graphs


def make_texts(checkpoint, count, words):
    with open(f"{checkpoint}/vocab.txt") as f:
        vocabulary = [w for w in f.read().split("\n") if w.isalpha() and w.islower()]
    generator = np.random.default_rng(1)
    return [" ".join(generator.choice(vocabulary, words)) for _ in range(count)]


def timed(engine, *args):
    time.sleep(0.2)
    start = time.perf_counter()
    engine.run(*args)
    return time.perf_counter() - start


def measure(engines, texts, sources, args):
    answers = [e.run(texts, sources, args.tokens) for e in engines]
    rounds = [[timed(e, texts, sources, args.tokens) for e in engines] for _ in range(args.rounds)]
    same = [np.mean(np.array(a) == np.array(answers[0])) for a in answers]
    total = len(texts) * args.tokens
    print(f"  batch {len(texts)}:", end="")
    for i, e in enumerate(engines):
        speed = statistics.median(total / r[i] for r in rounds)
        print(f"  {e.name} {speed:7.0f} tok/s", end="")
        if i:
            print(f" (ratio {statistics.median(r[i] / r[0] for r in rounds):.2f}, {same[i]:.0%} same)", end="")
    print(flush=True)


def bench(args, library, name, work):
    config, checkpoint, graphs, ours = make_folders(args, name, work)
    print(f"{name}, {'int8' if args.int8 else 'float32'}, {args.threads} thread{'s'[:args.threads > 1]}, "
          f"{args.source} source tokens, {args.tokens} new ones", flush=True)
    engines = [Ours(library, ours, checkpoint, args.threads),
               CTranslate2(f"{checkpoint}-ct2", config, args.threads, args.int8),
               OnnxRuntime(ort_folder(graphs, args.int8), config, args.threads)]
    for batch in map(int, args.batches.split(",")):
        texts = make_texts(checkpoint, batch, args.source)
        sources = [engines[0].tokens(t) for t in texts]
        measure(engines, texts, sources, args)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("library")
    parser.add_argument("make_checkpoint")
    parser.add_argument("sardonyx")
    parser.add_argument("--models", default="t5-small,bart-base")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--source", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work")
    args = parser.parse_args()
    library = c.CDLL(os.path.abspath(args.library))
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.models.split(","):
            bench(args, library, name, args.work or temporary)


main()
