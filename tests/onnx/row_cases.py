"""row_cases.py SARDONYX ORT_MODELS: operators and versions that neither ONNX's node tests nor the graphs of the other
tests have, mostly one node each, against ONNX Runtime, or where its CPU provider lacks the operator against NumPy."""
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

import contrib_cases
from one_node import MS, codes, floats, ints, make_model, number, rng, run


def erf_gelu(x):
    """0.5 x (1 + erf(x / sqrt 2)), the error function by ONNX Runtime."""
    return run("Erf", [(x / np.sqrt(2)).astype(np.float32)])[0] * 0.5 * x + 0.5 * x


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def check(sardonyx, op, inputs, want=None, **settings):
    """None, or why it failed. want: the outputs, else ONNX Runtime's."""
    want = run(op, inputs, **settings) if want is None else want
    return check_model(sardonyx, make_model(op, inputs, **settings), inputs, want)


def check_model(sardonyx, model, inputs, want):
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/test_data_set_0"
        os.mkdir(data)
        onnx.save(model, f"{folder}/model.onnx")
        for kind, values in (("input", [v for v in inputs if v is not None]), ("output", want)):
            for i, v in enumerate(values):
                with open(f"{data}/{kind}_{i}.pb", "wb") as f:
                    f.write(numpy_helper.from_array(np.asarray(v)).SerializeToString())
        done = subprocess.run([sardonyx, "test", folder, "--no_optimize", "--rtol", "1e-4", "--atol", "1e-5"],
                              capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stdout + done.stderr).strip()


def quantized(*shape):
    """Codes, scale and zero point."""
    return [codes(*shape), number(0.05), number(120, np.uint8)]


def cases():
    x, image = floats(2, 3, 8), floats(2, 3, 6, 6)
    a, b, bias = floats(4, 6), floats(6, 8), floats(8)
    yield "BiasAdd", [x, floats(8), floats(2, 3, 8)], lambda i: [i[0] + i[1] + i[2]], {"domain": MS}
    yield "BiasSplitGelu", [x, floats(8)], lambda i: [(i[0] + i[1])[..., :4] * erf_gelu((i[0] + i[1])[..., 4:])], \
        {"domain": MS}
    yield "BiasSoftmax", [x, floats(1, 3, 8)], lambda i: run("Softmax", [i[0] + i[1]], axis=-1), \
        {"domain": MS, "axis": 2, "is_inner_broadcast": 0}
    yield "GemmFastGelu", [a, b, bias], lambda i: [tanh_gelu(i[0] @ i[1] + i[2]).astype(np.float32)], {"domain": MS}
    yield "TransposeMatMul", [a, floats(8, 6)], None, {"domain": MS, "transB": 1}
    yield "MatMulInteger16", [codes(3, 4, dtype=np.int16) // 64, codes(4, 5, dtype=np.int16) // 64], None, {"domain": MS}
    for activation in ("Relu", "Tanh"):
        yield "FusedGemm", [a, b, bias], None, {"domain": MS, "activation": activation}
    for scales in (1,), (1, 20):  # one sequence: of more, ONNX Runtime's threads round some together
        yield "DynamicQuantizeLSTM", [floats(4, 1, 6), codes(1, 6, 20), codes(1, 5, 20), floats(1, 40),
                                      ints(3, dtype=np.int32), floats(1, 1, 5), None, floats(1, 15),
                                      floats(*scales) / 99 + 0.02, np.zeros(scales, np.uint8),
                                      floats(*scales) / 99 + 0.02, np.zeros(scales, np.uint8)], None, \
            {"domain": MS, "n_out": 3, "hidden_size": 5}
    w, w_scale, w_zero = codes(6, 8), floats(8) / 50 + 0.05, codes(8)
    yield "MatMulIntegerToFloat", [codes(4, 6), w, number(0.1), w_scale, number(7, np.uint8), w_zero, bias], None, \
        {"domain": MS}
    yield "DynamicQuantizeMatMul", [a, w, w_scale, w_zero, bias], None, {"domain": MS}
    yield "Trilu", [floats(4, 5)], None, {"domain": MS, "upper": 0}
    yield "ExpandDims", [x, number(1, np.int32)], None, {"domain": MS}
    yield "GatherBlockQuantized", [codes(6, 16), ints(1, 5, 0), floats(6, 2)], None, \
        {"domain": MS, "block_size": 16, "bits": 4, "quantize_axis": 1}
    y = [number(0.1), number(100, np.uint8)]
    for op, more in (("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.1})):
        yield op, quantized(3, 8) + y, None, {"domain": MS, **more}
    yield "QLinearSoftmax", quantized(3, 8) + [number(1 / 256), number(0, np.uint8)], None, \
        {"domain": MS, "axis": -1, "opset": 13}
    yield "QLinearConcat", y + quantized(2, 3) + [codes(2, 4), number(0.2), number(3, np.uint8)], None, \
        {"domain": MS, "axis": 1}
    yield "QLinearWhere", [rng.random((2, 3)) < 0.5] + quantized(2, 3) + [codes(2, 3), *y] + y, None, {"domain": MS}
    yield "QLinearAveragePool", quantized(1, 2, 6, 6) + [number(0.07), y[1]], None, \
        {"domain": MS, "kernel_shape": [2, 2]}
    yield "QLinearGlobalAveragePool", quantized(1, 2, 6, 6) + y, None, {"domain": MS, "channels_last": 0}
    table = [codes(*s) for s in ((10, 8), (6, 8), (2, 8), (8,), (8,))]
    yield "QEmbedLayerNormalization", [rng.integers(0, 10, (2, 4)).astype(np.int32), np.zeros((2, 4), np.int32), *table,
                                       np.ones((2, 4), np.int32)] + [number(0.02)] * 5 + [number(128, np.uint8)] * 5, \
        None, {"domain": MS, "n_out": 2}
    yield "GatedRelativePositionBias", *gated_bias(), {"domain": MS, "num_heads": 2}
    yield "Clip", [x], None, {"version": 6, "min": -0.5, "max": 0.25}
    yield "MaxPool", [image], None, {"version": 7, "kernel_shape": [3, 3], "strides": [2, 2]}
    yield "GlobalLpPool", [image], None, {"p": 2}
    yield "Dropout", [x], None, {"version": 7}
    for op in ("ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceSum"):
        yield op, [np.abs(x) + 0.5], None, {"version": 11, "axes": [1], "keepdims": 0}
    yield "Upsample", [image], None, {"version": 7, "scales": [1.0, 1.0, 2.0, 2.0], "mode": "nearest"}
    yield "LogSoftmax", [x], None, {"version": 11, "axis": 1}
    yield "TopK", [x], None, {"version": 9, "k": 3, "axis": -1, "n_out": 2}
    for quant_type in (0, 1):
        yield "MatMulBnb4", [floats(3, 64), codes(9 * 64 // 2), floats(9 * 64 // 32)], None, \
            {"domain": MS, "K": 64, "N": 9, "block_size": 32, "quant_type": quant_type}


def gated_bias():
    """query, bias, relative bias [1,N,T,T], weight, bias and eco_a [1,N,1,1], and what Microsoft's documentation computes."""
    heads, size, length = 2, 4, 3
    query, query_bias, relative = floats(1, length, heads * size), floats(heads * size), floats(1, heads, length, length)
    weight, bias, eco = floats(size, 8), floats(8), floats(1, heads, 1, 1)

    def compute(_):
        q = (query + query_bias).reshape(1, length, heads, size).transpose(0, 2, 1, 3)
        halves = (q @ weight + bias).reshape(1, heads, length, 2, 4).sum(-1)
        gate = 1 / (1 + np.exp(-halves))
        return [((gate[..., :1] * (gate[..., 1:] * eco - 1) + 2) * relative).astype(np.float32)]

    return [query, query_bias, relative, weight, bias, eco], compute


def chain(nodes, inputs):
    """A model of several nodes, from i0... to o0."""
    ports = [helper.make_tensor_value_info(f"i{i}", helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
             for i, v in enumerate(inputs)]
    graph = helper.make_graph(nodes, "chain", ports, [onnx.ValueInfoProto(name="o0")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def greedy(folder):
    """The decoder of ONNX Runtime's test of BeamSearch under GreedySearch."""
    model = onnx.load(f"{folder}/onnxruntime/test/testdata/transformers/tiny_gpt2_beamsearch.onnx")
    node = model.graph.node[0]
    node.op_type = "GreedySearch"
    settings = [number(20, np.int32).reshape(1), number(1, np.int32).reshape(1), number(1.2).reshape(1)]
    names = ["input_ids", "max_length", "min_length", "repetition_penalty"]
    kept = [[a for a in node.attribute if a.name != "early_stopping"], [i for i in model.graph.input if i.name in names]]
    for field, values in ((node.input, names), (node.attribute, kept[0]), (model.graph.input, kept[1])):
        del field[:]
        field.extend(values)
    return model, [rng.integers(0, 1000, (2, 6)).astype(np.int32), *settings]


def models(folder):
    """Of more than one node."""
    x, node = floats(2, 3), helper.make_node
    yield chain([node("SequenceConstruct", ["i0", "i0"], ["s"]), node("ConcatFromSequence", ["s"], ["o0"], axis=1)], [x]), [x]
    yield chain([node("NonZero", ["i0"], ["n"]), node("Size", ["n"], ["o0"])], [x]), [x]
    yield greedy(folder)


def check_whole(sardonyx, model, inputs):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    want = session.run(None, {p.name: v for p, v in zip(session.get_inputs(), inputs)})
    return check_model(sardonyx, model, inputs, want)


def main():
    passed = failed = 0
    for op, inputs, compute, settings in (*cases(), *contrib_cases.cases()):
        try:
            why = check(sys.argv[1], op, inputs, compute and compute(inputs), **settings)
        except Exception as e:  # ONNX Runtime refuses it
            why = str(e)
        passed, failed = passed + (why is None), failed + (why is not None)
        if why:
            print("FAILED", op, settings, why, flush=True)
    for model, inputs in models(sys.argv[2]):
        why = check_whole(sys.argv[1], model, inputs)
        passed, failed = passed + (why is None), failed + (why is not None)
        if why:
            print("FAILED", model.graph.node[-1].op_type, why, flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
