"""contrib_cases.py: operators of com.microsoft that large language models of many experts and of linear attention are
exported with, a node each: (operator, inputs, None or what computes the outputs, attributes) for row_cases.py."""
import numpy as np
import onnxruntime as ort

from one_node import MS, codes, floats, ints, make_model, number, rng


def experts():
    x, router = floats(5, 32), floats(5, 4) * 3
    router[0] = 1  # all alike
    layers = [floats(4, 16, 32), floats(4, 16), floats(4, 32, 16), floats(4, 32)]
    for activation in "relu", "gelu", "silu", "identity":
        yield "MoE", [x, router, *layers], None, {"k": 2, "activation_type": activation, "normalize_routing_weights": 1}
    gated = {"k": 3, "activation_type": "swiglu", "swiglu_fusion": 1, "activation_alpha": 1.702, "activation_beta": 1.0,
             "swiglu_limit": 0.5}
    yield "MoE", [x[None], router, floats(4, 32, 32), None, floats(4, 32, 16)], None, gated
    for bits in 2, 4, 8:
        scales = [floats(4, n) / 2**bits for n in (16, 32)]
        weights = [codes(4, 16, 32 * bits // 8), scales[0], floats(4, 16), codes(4, 32, 16 * bits // 8), scales[1]]
        zeros = [codes(4, 16 * bits // 8), codes(4, 32 * bits // 8)]
        format = {"k": 2, "expert_weight_bits": bits, "activation_type": "silu"}
        yield "QMoE", [x, router, *weights], None, format
        yield "QMoE", [x, router, *weights, None, None, None, None, *zeros, None, np.abs(router)], None, format
    blocks = [floats(4, 16, 2) / 16, floats(4, 32, 1) / 16]
    zeros = [codes(4, 16, 1), codes(4, 32, 1)]
    yield "QMoE", [x, router, codes(4, 16, 16), blocks[0], None, codes(4, 32, 8), blocks[1], None, None, None, None,
                   *zeros], None, {"k": 2, "block_size": 16}


def shared_cache(op, **settings):
    """ONNX Runtime's answer where past (inputs 3 and 4) and present are one memory."""
    def compute(inputs):
        model = make_model(op, inputs, n_out=3, **settings)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        binding, own = session.io_binding(), [None if v is None else v.copy() for v in inputs]
        values = [None if v is None else ort.OrtValue.ortvalue_from_numpy(v) for v in own]
        for i, value in enumerate(values):
            if value:
                binding.bind_ortvalue_input(f"i{i}", value)
        binding.bind_output("o0")
        binding.bind_ortvalue_output("o1", values[3])
        binding.bind_ortvalue_output("o2", values[4])
        session.run_with_iobinding(binding)
        return [binding.get_outputs()[0].numpy().copy(), own[3], own[4]]
    return compute


def sparse_attention():
    """Four heads in two layouts of 4 x 4 blocks of 16 tokens, which share two heads of keys."""
    rows = np.array([[0, 1, 3, 5, 8], [0, 1, 3, 6, 9]], np.int32)
    columns = np.array([[0, 0, 1, 1, 2, 1, 2, 3, -1], [0, 0, 1, 0, 1, 2, 0, 2, 3]], np.int32)
    angle = floats(64, 8) * 3
    tables = [np.cos(angle), np.sin(angle)]
    for tokens, total, rotary in (20, 20, 0), (3, 50, 1):
        settings = {"domain": MS, "num_heads": 4, "kv_num_heads": 2, "sparse_block_size": 16, "do_rotary": rotary}
        new = [floats(2, tokens, 64), floats(2, tokens, 32), floats(2, tokens, 32)]
        lengths = [ints(total, dtype=np.int32), ints(total, total, dtype=np.int32)]
        yield "SparseAttention", [*new, floats(2, 2, 64, 16), floats(2, 2, 64, 16), rows, columns, *lengths,
                                  *tables[:2 * rotary]], shared_cache("SparseAttention", **settings), \
            {"n_out": 3, **settings}


def gates():
    x, y, half = floats(2, 3, 8), floats(2, 3, 8), np.float16
    yield "GatedAdd", [x, y, floats(2, 3, 1)], None, {}
    for activation in "silu", "sigmoid":
        yield "GatedRMSNorm", [x, floats(4), y], None, {"activation": activation, "epsilon": 0.01}
    for scale in None, floats(4), floats(2, 4):
        yield "BranchwiseRMSNorm", [x, scale], None, {"num_branches": 2}
    yield "BranchwiseRMSNorm", [floats(3, 2, 4).astype(half), floats(8)], None, {}
    yield "ScaledSiLU", [x], None, {"alpha": 2.0}
    yield "ScaledSiLU", [x.astype(half), number(3)], None, {}
    yield "LinearAttentionGate", [x * 9, floats(8), floats(8), y], None, {"n_out": 2}
    streams, output, mix = floats(2, 5, 3, 4), floats(2, 5, 4), floats(2, 5, 3, 3)
    for gate in floats(2, 5, 3), floats(2, 5, 3, 4):
        yield "HyperConnectionPreMix", [streams, gate], None, {"reduction_scale": 0.5}
        yield "HyperConnectionPostMix", [streams, output, gate, mix], None, {}
        yield "HyperConnectionPostMix", [streams.reshape(2, 5, 12), output, gate], None, {"num_branches": 3}
    yield "HyperConnectionPreMix", [streams.reshape(2, 5, 12), floats(2, 5, 12)], None, {"num_branches": 3}
    yield "EngramGate", [floats(2, 5, 3, 4), streams, output, floats(3, 4), floats(3, 4), floats(3, 4)], None, {"n_out": 2}


def ngrams():
    for size in 1, 3:
        ids = rng.integers(0, 3, (2, 9))
        yield "NGramRepeatBlock", [ids, floats(2, 6)], None, {"ngram_size": size}
    for dtype in np.int32, np.int64:
        ids, past = rng.integers(0, 9, (2, 7)).astype(dtype), rng.integers(0, 9, (2, 2)).astype(dtype)
        factors = rng.integers(-np.iinfo(dtype).max, np.iinfo(dtype).max, 3).astype(dtype)
        sizes, offsets = (rng.integers(1, 97, 4).astype(dtype) for _ in range(2))
        settings = {"n_out": 2, "max_ngram_size": 3, "n_head_per_ngram": 2, "pad_id": 7}
        segments = np.repeat(np.arange(2, dtype=np.int32), [3, 4])[None].repeat(2, 0)
        yield "NGramHashMapping", [ids, factors, sizes], None, settings
        yield "NGramHashMapping", [ids, factors, sizes, past, offsets, number(3, dtype), segments], None, \
            {"reset_on_eos": 1, **settings}


def recurrences():
    for heads, key_heads, rule in (4, 2, "gated_delta"), (2, 4, "gated_delta"), (2, 2, "linear"):
        new = [floats(2, 5, heads * 4), floats(2, 5, key_heads * 4), floats(2, 5, key_heads * 6)]
        settings = {"n_out": 2, "q_num_heads": heads, "kv_num_heads": key_heads, "update_rule": rule}
        gates = [-np.abs(floats(2, 5, key_heads * 4)), np.abs(floats(2, 5, key_heads))]
        yield "LinearAttention", [*new, floats(2, key_heads, 4, 6), *gates], None, settings
    weights = [floats(6, 1, 3), floats(6)]
    yield "CausalConvWithState", [floats(2, 6, 5), *weights, floats(2, 6, 2)], None, {"n_out": 2, "activation": "silu"}
    yield "CausalConvWithState", [floats(2, 5, 2, 3), *weights], None, {"n_out": 2, "dilation": 2, "channels_last": 1}
    for layout in 0, 1:
        yield "MRotaryEmbedding", [floats(2, 5, 64), rng.integers(0, 9, (3, 2, 5)), floats(9, 16), floats(9, 16)], None, \
            {"num_heads": 2, "mrope_section": [6, 5, 5], "mrope_layout": layout, "scale": 0.5}


def others():
    costs = np.round(np.abs(floats(6, 9)) * 3).astype(np.float32)
    yield "DynamicTimeWarping", [costs], None, {}
    yield "DynamicTimeWarping", [costs[None, :, :1]], None, {}
    for dim, step in (1, 2), (-2, 1):
        yield "UnfoldTensor", [floats(2, 7, 3)], None, {"dim": dim, "size": 3, "step": step}
    yield "GridSample", [floats(1, 2, 4, 4), floats(1, 3, 3, 2)], None, {"mode": "bicubic", "align_corners": 1}
    yield "Range", [number(1), number(3.5)], None, {}
    yield "Unique", [np.round(floats(12) * 3)], None, {"n_out": 3}


def cases():
    for family in experts, sparse_attention, gates, ngrams, recurrences, others:
        for op, inputs, compute, settings in family():
            yield op, inputs, compute, {"domain": MS, **settings}
