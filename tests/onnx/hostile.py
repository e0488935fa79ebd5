"""hostile.py SARDONYX: graphs made to hurt. Each must end within SECONDS of processor time and MEGABYTES of address space
(a sanitizer's own bounds instead, where that is one), with no signal, and a sentence that has the words it is listed
with; "": some sentence; None: a sentence or an answer."""
import os
import resource
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

SECONDS, MEGABYTES, STEPS = 20, 512, 20000
MS = "com.microsoft"
node = helper.make_node


def constant(name, value, dtype=np.int64):
    return numpy_helper.from_array(np.array(value, dtype), name)


def port(name, dtype=T.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


def graph(nodes, inputs=(), outputs=("y",), constants=()):
    return helper.make_graph(nodes, "g", list(inputs), [onnx.ValueInfoProto(name=o) for o in outputs], list(constants))


def model(nodes, inputs=(), constants=(), outputs=("y",), functions=(), opset=17):
    return helper.make_model(graph(nodes, inputs, outputs, constants), ir_version=10, functions=list(functions),
                             opset_imports=[helper.make_opsetid(d, v) for d, v in (("", opset), (MS, 1), ("local", 1))])


def operator(op, inputs, n_out=1, domain="", opset=17, fed=True, **attributes):
    """One node. Its inputs are fed, or constants."""
    names = ["" if v is None else f"i{i}" for i, v in enumerate(inputs)]
    given = {n: np.asarray(v) for n, v in zip(names, inputs) if n}
    outputs = ["y"] + [f"y{i}" for i in range(1, n_out)]
    ports = [port(n, helper.np_dtype_to_tensor_dtype(v.dtype), [None] * v.ndim) for n, v in given.items()]
    constants = [numpy_helper.from_array(v, n) for n, v in given.items()]
    made = model([node(op, names, outputs, domain=domain, **attributes)], ports if fed else (), () if fed else constants,
                 outputs, opset=opset)
    return made, given if fed else {}


def floats(*shape):
    return np.ones(shape, np.float32)


def ints(*values):
    return np.array(values, np.int64)


# ---- graphs in graphs --------------------------------------------------------------------------------------------


def loop(trips, body, states, opset=17):
    """body: nodes that make n_<state> of <state>; also `more`."""
    inputs = [port("i", T.INT64, []), port("go", T.BOOL, [])] + [onnx.ValueInfoProto(name=s) for s in states]
    inner = graph([node("Identity", ["go"], ["more"])] + body, inputs, ["more"] + [f"n_{s}" for s in states])
    return node("Loop", [trips, ""] + [f"{s}_0" for s in states], list(states.values()), body=inner)


def nested_loops(depth):
    made = [node("Add", ["s", "s"], ["n_s"])]
    for level in range(depth):
        made = [loop("trips", made, {"s": "n_s" if level < depth - 1 else "y"})]
        made[0].input[2] = "s" if level < depth - 1 else "x"
    return model(made, [port("x", shape=[])], [constant("trips", 1000)]), {"x": floats()}


def nested_ifs(depth, both):
    """Each If carries the next one, in one branch or in both: 2^depth graphs."""
    def branch(level):
        if level == 0:
            return graph([node("Neg", ["x"], ["y0"])], (), ["y0"])
        yes = branch(level - 1)
        no = branch(level - 1) if both else graph([node("Abs", ["x"], ["a"])], (), ["a"])
        return graph([node("If", ["c"], [f"y{level}"], then_branch=yes, else_branch=no)], (), [f"y{level}"])
    top = branch(depth)
    return model(list(top.node), [port("c", T.BOOL, []), port("x", shape=[2])], outputs=[f"y{depth}"]), \
        {"c": np.array(True), "x": floats(2)}


def field(number, data):
    """A field of bytes in the wire format of protobuf, whose Python library makes nothing that deep."""
    size, head = len(data), b""
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + head + bytes([size]) + data


def deep_ifs(depth):
    made, given = nested_ifs(0, False)
    inner = made.graph.SerializeToString()
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, inner) + b"\xa0\x01\x05"
        inner = field(1, field(1, b"c") + field(2, b"y0") + field(4, b"If") + field(5, attribute)) + field(12, field(1, b"y0"))
    made.ClearField("graph")
    return made.SerializeToString() + field(7, inner), given


def scan(length):
    body = graph([node("Add", ["s", "e"], ["n"]), node("Identity", ["n"], ["o"])],
                 [port("s", shape=[]), port("e", shape=[])], ["n", "o"])
    nodes = [node("Expand", ["x", "n"], ["list"]), node("Scan", ["x", "list"], ["last", "y"], body=body, num_scan_inputs=1)]
    return model(nodes, [port("x", shape=[]), port("n", T.INT64, [1])]), {"x": floats(), "n": ints(length)}


def growing_loop(body, start, inputs, trips=1 << 40):
    nodes = start + [loop("trips", body, {"s": "last"})]
    nodes += [node("SequenceLength" if start else "Size", ["last"], ["y"])]
    given = {n: v for n, v in inputs.items()}
    ports = [port(n, helper.np_dtype_to_tensor_dtype(v.dtype), list(v.shape)) for n, v in inputs.items()]
    return model(nodes, ports, [constant("trips", trips)], opset=20), given


def functions(calls):
    """f0 calls calls[0], ...: names of functions, or of operators."""
    made = []
    for i, called in enumerate(calls):
        nodes = [node(c, [f"v{k}"], [f"v{k + 1}"], domain="local" if c[0] == "f" else "") for k, c in enumerate(called)]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        made.append(helper.make_function("local", f"f{i}", ["v0"], [f"v{len(called)}"], nodes, opsets))
    return model([node("f0", ["x"], ["y"], domain="local")], [port("x", shape=[])], functions=made), {"x": floats()}


def structures():
    yield "loops in loops", *nested_loops(6), "20000 steps"
    yield "loops 20 deep", *nested_loops(20), "20000 steps"
    yield "Ifs 20 deep", *nested_ifs(20, False), None
    yield "Ifs 3000 deep", *deep_ifs(3000), "deep"
    yield "Ifs in both branches", *nested_ifs(12, True), None
    empty = graph([], [port("i", T.INT64, []), port("go", T.BOOL, []), port("s", shape=[])], ["go", "s"])
    yield "endless Loop", model([node("Loop", ["n", "", "x"], ["y"], body=empty)], [port("n", T.INT64, []), port("x", shape=[])]), \
        {"n": np.array(2**63 - 1), "x": floats()}, "20000 steps"
    yield "Loop of 2^63 trips", *growing_loop([node("Neg", ["s"], ["n_s"])], [], {"s_0": floats(2)}, 2**63 - 1), "20000 steps"
    yield "Scan of 10^6", *scan(10**6), "20000 steps"
    yield "Scan of 2^60", *scan(2**60), "bytes"
    strings = np.array(["0123456789abcdef" * 8])
    yield "strings that double", *growing_loop([node("StringConcat", ["s", "s"], ["n_s"])], [], {"s_0": strings}), None
    yield "a tensor that doubles", *growing_loop([node("Concat", ["s", "s"], ["n_s"], axis=0)], [], {"s_0": floats(9)}), \
        "bytes"
    yield "a sequence that grows", *growing_loop([node("SequenceInsert", ["s", "x"], ["n_s"])],
                                                [node("SequenceConstruct", ["x"], ["s_0"])], {"x": floats(1 << 12)}), \
        "limit of steps"
    yield "a function of itself", *functions([["f0"]]), "calls itself"
    yield "functions of each other", *functions([["f1"], ["f2"], ["f1"]]), "calls itself"
    yield "functions that double", *functions([[f"f{i + 1}"] * 2 for i in range(40)] + [["Neg"]]), "more than"
    yield "a cycle", model([node("Add", ["x", "b"], ["a"]), node("Neg", ["a"], ["b"]), node("Abs", ["b"], ["y"])],
                           [port("x", shape=[2])]), {"x": floats(2)}, "cycle"
    yield "a node of itself", model([node("Add", ["x", "y"], ["y"])], [port("x", shape=[2])]), {"x": floats(2)}, "cycle"
    yield "a body that reads its node's output", *self_feeding(), "cycle"


def self_feeding():
    made = loop("n", [node("Add", ["s", "y"], ["n_s"])], {"s": "y"})
    return model([made], [port("n", T.INT64, []), port("s_0", shape=[])]), {"n": np.array(2), "s_0": floats()}


# ---- sizes -------------------------------------------------------------------------------------------------------


def declared(dims):
    bad = model([node("Neg", ["x"], ["y"])], [port("x", shape=[1])])
    del bad.graph.input[0].type.tensor_type.shape.dim[:]
    for d in dims:
        bad.graph.input[0].type.tensor_type.shape.dim.add().dim_value = d
    return bad, {"x": floats(1)}


def initializer(dims):
    bad = model([node("Neg", ["w"], ["y"])], (), [constant("w", [1.0], np.float32)])
    del bad.graph.initializer[0].dims[:]
    bad.graph.initializer[0].dims.extend(dims)
    return bad, {}


def sizes():
    huge, square = 2**40, [2**31, 2**31]
    yield "declared -5", *declared([-5]), None
    yield "declared 2^62 x 2^62", *declared([2**62, 2**62]), None
    yield "initializer of -1", *initializer([-1]), "-1"
    yield "initializer of 2^31 x 2^31 x 4", *initializer(square + [4]), None
    for fed in (True, False):
        for shape in ([huge], square + [4], [-1, 5]):
            yield "ConstantOfShape", *operator("ConstantOfShape", [ints(*shape)], fed=fed), None
            yield "Expand", *operator("Expand", [floats(1), ints(*shape)], fed=fed), None
        yield "Tile", *operator("Tile", [floats(3, 3), ints(*square)], fed=fed), None
        yield "Tile negative", *operator("Tile", [floats(3), ints(-2)], fed=fed), None
        yield "Range", *operator("Range", [np.array(0), np.array(2**62), np.array(1)], fed=fed), None
        yield "Range by 0", *operator("Range", [np.array(0), np.array(9), np.array(0)], fed=fed), "delta is 0"
        yield "Range of NaN", *operator("Range", [floats(), floats() * np.nan, floats()], fed=fed), None
        yield "OneHot", *operator("OneHot", [ints(1, 2), np.array(huge), floats(2)], fed=fed), None
        yield "Resize", *operator("Resize", [floats(1, 1, 2, 2), None, floats(4) * np.float32(1e9)], fed=fed,
                                  mode="nearest"), None
        yield "Resize sizes", *operator("Resize", [floats(1, 1, 2, 2), None, None, ints(1, 1, 2**33, 2**33)], fed=fed,
                                        mode="nearest"), None
        yield "Pad", *operator("Pad", [floats(2), ints(huge, huge)], fed=fed), None
        yield "Pad over", *operator("Pad", [floats(2), ints(2**63 - 1, 2**63 - 1)], fed=fed), None
        yield "EyeLike", *operator("EyeLike", [floats(1 << 9, 1 << 9)], fed=fed, dtype=1), None
        yield "TopK", *operator("TopK", [floats(4), ints(2**62)], n_out=2, fed=fed), None
        yield "TopK negative", *operator("TopK", [floats(4), ints(-1)], n_out=2, fed=fed), None
        yield "BlackmanWindow", *operator("BlackmanWindow", [np.array(huge)], fed=fed), None
        yield "MelWeightMatrix", *operator("MelWeightMatrix", [np.array(2**31), np.array(2**31), np.array(16000),
                                                               floats(), floats() * 8000], fed=fed), None
        yield "Trilu", *operator("Trilu", [floats(4, 4), np.array(-2**63)], fed=fed), None
        yield "Reshape", *operator("Reshape", [floats(4), ints(*square)], fed=fed), None
        yield "Slice", *operator("Slice", [floats(4), ints(-2**63), ints(2**63 - 1), ints(0), ints(-2**63)], fed=fed), None
        yield "Split", *operator("Split", [floats(4), ints(-1, 5)], n_out=2, fed=fed), None
        yield "Gather", *operator("Gather", [floats(4), ints(2**62)], fed=fed), None
        yield "CumSum", *operator("CumSum", [floats(4), np.array(9)], fed=fed), None
    yield "RandomNormal", *operator("RandomNormal", [], shape=[2**31, 2**31]), None
    yield "Conv padded", *operator("Conv", [floats(1, 1, 2), floats(1, 1, 2)], pads=[2**40, 2**40]), None
    yield "MaxPool padded", *operator("MaxPool", [floats(1, 1, 2)], kernel_shape=[2**40], pads=[2**39, 2**39]), None
    yield "ConvTranspose", *operator("ConvTranspose", [floats(1, 1, 2), floats(1, 1, 2)], strides=[2**60]), None
    yield "DFT", *operator("DFT", [floats(1, 4, 1), np.array(2**40)]), None
    yield "STFT", *operator("STFT", [floats(1, 99, 1), np.array(0), None, np.array(4)]), None
    yield "Det of 0 x 3", *operator("Det", [floats(0, 3)]), None
    yield "DepthToSpace", *operator("DepthToSpace", [floats(1, 4, 2, 2)], blocksize=2**40), None


# ---- work --------------------------------------------------------------------------------------------------------


def work():
    for fed in (True, False):
        yield "Einsum of 300^6", *operator("Einsum", [floats(300)] * 6, fed=fed, equation="a,b,c,d,e,f->"), "limit of steps"
    boxes = np.tile(np.arange(1 << 17, dtype=np.float32)[None, :, None], (1, 1, 4)) * 2 + np.array([0, 0, 1, 1], np.float32)
    yield "NonMaxSuppression of 2^17 boxes apart", *operator(
        "NonMaxSuppression", [boxes, floats(1, 1, 1 << 17), np.array([2**62])]), "limit of steps"
    yield "RegexFullMatch", *operator("RegexFullMatch", [np.array(["a" * 40 + "b"] * 50)], opset=20,
                                      pattern="(a|a|aa)+(a+)+(a*)*c"), None
    yield "TopK of many", *operator("TopK", [np.arange(1 << 20, dtype=np.float32), ints(1 << 20)], n_out=2), None
    yield "Unique", *operator("Unique", [np.arange(1 << 18, dtype=np.float32)]), None


# ---- types and inputs --------------------------------------------------------------------------------------------


def refused():
    x = floats(2, 4, 8)
    yield "an input that nothing makes", model([node("Add", ["x", "ghost"], ["y"])], [port("x", shape=[2])]), \
        {"x": floats(2)}, "ghost"
    yield "an input not fed", model([node("Neg", ["x"], ["y"])], [port("x", shape=[2])]), {}, "cannot open"
    yield "an output that nothing makes", model([node("Neg", ["x"], ["z"])], [port("x", shape=[2])]), {"x": floats(2)}, "y"
    yield "too few inputs", *operator("Add", [x]), "input"
    yield "too many inputs", *operator("Neg", [x, x]), "input"
    yield "Add of two types", *operator("Add", [x, x.astype(np.int64)]), "int64"
    yield "If of a float", *float_if(), "truth value"
    yield "Loop of a float", *float_loop(), "one integer"
    for op, inputs in (("MatMul", [x, np.array(["a"])]), ("Softmax", [x.astype(np.int64)]), ("Gather", [x, x]),
                       ("Reshape", [x, floats(2)]), ("Not", [x]), ("Where", [x, x, x]), ("And", [x, x]),
                       ("Expand", [x, floats(3)]), ("TopK", [x, floats(1)]), ("OneHot", [x, x, x]),
                       ("StringConcat", [x, x]), ("LayerNormalization", [x.astype(np.int32), floats(8)]),
                       ("Conv", [x, np.zeros((2, 4, 3), np.int8)]), ("Resize", [x, None, np.array(["a"])]),
                       ("NonMaxSuppression", [x, x]), ("Tile", [x, floats(3)]), ("Range", [floats(), np.array(3), floats()])):
        yield f"{op} of wrong types", *operator(op, inputs, opset=20), ""
    yield from attention()


def float_if():
    branch = graph([node("Neg", ["x"], ["a"])], (), ["a"])
    return model([node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)], [port("x", shape=[])]), {"x": floats()}


def float_loop():
    made = loop("n", [node("Neg", ["s"], ["n_s"])], {"s": "y"})
    return model([made], [port("n", shape=[]), port("s_0", shape=[])]), {"n": floats(), "s_0": floats()}


def attention():
    x, w, b = floats(1, 3, 8), floats(8, 24), floats(24)
    for heads in (0, -2, 3, 2**31, 2**62):
        yield f"Attention of {heads} heads", *operator("Attention", [x, w, b], domain=MS, num_heads=heads), ""
        yield f"MultiHeadAttention of {heads} heads", *operator("MultiHeadAttention", [x, x, x], domain=MS, num_heads=heads), ""
    for past in ((2, 1, 4, 5, 2), (2, 1, 2, 5, 8), (2, 3, 2, 5, 4), (2, 2, 5, 4)):
        yield f"Attention of a past {past}", *operator("Attention", [x, w, b, None, floats(*past)], domain=MS, num_heads=2,
                                                      n_out=2), ""
    for past in ((1, 4, 5, 2), (1, 2, 5, 8), (3, 2, 5, 4)):
        yield f"MultiHeadAttention of a past {past}", *operator(
            "MultiHeadAttention", [x, x, x, None, None, None, floats(*past), floats(*past)], domain=MS, num_heads=2, n_out=3), ""
    yield "MultiHeadAttention of half a past", *operator(
        "MultiHeadAttention", [x, x, x, None, None, None, floats(1, 2, 5, 4)], domain=MS, num_heads=2, n_out=3), ""
    yield "MultiHeadAttention of two widths", *operator("MultiHeadAttention", [x, floats(1, 3, 6), x], domain=MS, num_heads=2), ""
    codes, table = np.ones((1, 3, 8), np.uint8), np.ones((8, 24), np.uint8)
    scale, zero = np.float32(0.1), np.uint8(3)
    for bad in (floats(2), floats(2, 2), floats(25, 1), floats(0)):
        yield f"QAttention, scale of input {bad.shape}", *operator(
            "QAttention", [codes, table, b, bad, scale, None, zero, zero], domain=MS, num_heads=2), ""
        yield f"QAttention, scale of weight {bad.shape}", *operator(
            "QAttention", [codes, table, b, scale, bad, None, zero, zero], domain=MS, num_heads=2), ""
    yield "QAttention of float", *operator("QAttention", [x, table, b, scale, scale], domain=MS, num_heads=2), ""
    yield "GroupQueryAttention of odd heads", *operator(
        "GroupQueryAttention", [x, x, x, None, None, np.array([2], np.int32), np.array(3, np.int32)], domain=MS,
        num_heads=3, kv_num_heads=2, n_out=3), ""


# ---- running -----------------------------------------------------------------------------------------------------


def bound(sanitized):
    def set_limits():
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        if not sanitized:
            resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES << 20, MEGABYTES << 20))
    return set_limits


def save(made, given, folder):
    with open(f"{folder}/model.onnx", "wb") as f:
        f.write(made if isinstance(made, bytes) else made.SerializeToString())
    os.mkdir(f"{folder}/test_data_set_0")
    for i, (name, value) in enumerate(given.items()):
        with open(f"{folder}/test_data_set_0/input_{i}.pb", "wb") as f:
            f.write(numpy_helper.from_array(value, name).SerializeToString())
    with open(f"{folder}/test_data_set_0/output_0.pb", "wb") as f:  # so that there is a test to run
        f.write(numpy_helper.from_array(floats(1)).SerializeToString())


def check(sardonyx, made, given, words, more):
    """None, or why it failed."""
    with tempfile.TemporaryDirectory() as folder:
        save(made, given, folder)
        done = subprocess.run([sardonyx, "test", folder, "--max_steps", str(STEPS), "--threads", "1", *more],
                              capture_output=True, text=True, preexec_fn=bound("asan" in sardonyx), errors="replace",
                              env=dict(os.environ, ASAN_OPTIONS=f"allocator_may_return_null=1:max_allocation_size_mb={MEGABYTES}"))
    said = (done.stdout + done.stderr).strip()
    if done.returncode not in (0, 1) or "ERROR: AddressSanitizer" in said or "runtime error" in said:
        return f"exit code {done.returncode}: {said[-300:]}"
    if words is not None and (words not in said or "output y" in said):
        return f"does not say \"{words}\": {said[:300]}"
    if os.environ.get("SHOW"):
        print("   ", said.splitlines()[0][:230])
    return None


def main():
    passed = failed = 0
    for family in (structures, sizes, work, refused):
        for name, made, given, words in family():
            if len(sys.argv) > 2 and sys.argv[2] not in name:
                continue
            for more in ([], ["--no_optimize"]):
                if os.environ.get("SHOW"):
                    print(name, more)
                why = check(sys.argv[1], made, given, words, more)
                passed, failed = passed + (why is None), failed + (why is not None)
                if why:
                    print("FAILED", name, *more, why, flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
