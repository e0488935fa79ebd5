"""explain_check.py SARDONYX MODEL: graphs broken on purpose, one fault each; --explain names the node and the reason.

MODEL is a two-layer BERT as PyTorch's TorchScript exporter wrote it (tests/data/zoo/bert-mlm). Each row below breaks
layer 0: the place that must be reported, part of the reason, and the exit code 1. Closes with "N passed, N failed".
"""
import json
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import helper, numpy_helper

SELF = "/m/bert/encoder/layer.0/attention/self/"
LAST = "/m/bert/encoder/layer.1/attention/self/"  # for faults that leave sizes unknown: nothing comes after
NORM = "/m/bert/encoder/layer.0/output/LayerNorm/"
GELU = "/m/bert/encoder/layer.0/intermediate/intermediate_act_fn/"


class Graph:
    def __init__(self, path):
        self.model = onnx.load(path)
        self.node = {n.name: n for n in self.model.graph.node}

    def insert(self, op_type, reader, at, name="broken", constant=None, **attributes):
        """op(input) in front of input `at` of one node."""
        reader = self.node[reader]
        inputs = [reader.input[at]]
        if constant is not None:
            inputs.append(self.number(constant, name))
        new = helper.make_node(op_type, inputs, [f"{name}_output"], name=name, **attributes)
        self.model.graph.node.insert(list(self.model.graph.node).index(reader), new)
        reader.input[at] = new.output[0]

    def number(self, value, name):
        tensor = numpy_helper.from_array(np.asarray(value, np.float32), f"{name}_number")
        self.model.graph.initializer.append(tensor)
        return tensor.name

    def set(self, node, **attributes):
        for key, value in attributes.items():
            kept = [a for a in self.node[node].attribute if a.name != key]
            del self.node[node].attribute[:]
            self.node[node].attribute.extend(kept + [helper.make_attribute(key, value)])

    def output(self, node):
        self.model.graph.output.append(helper.make_tensor_value_info(self.node[node].output[0], 1, None))


def skip_transpose(g):
    """Heads joined as they lie: [b,n,t,h] read as [b,t,n*h]."""
    g.node[SELF + "Reshape_3"].input[0] = g.node[SELF + "MatMul_1"].output[0]


def variable_gamma(g):
    """gamma that the input decides: the mean over tokens of x."""
    new = helper.make_node("ReduceMean", [g.node[NORM + "Sub"].input[0]], ["gamma"], name="gamma", axes=[1])
    at = list(g.model.graph.node).index(g.node[NORM + "Mul"])
    g.model.graph.node.insert(at, new)
    g.node[NORM + "Mul"].input[1] = "gamma"


def keep_heads(g):
    """The number of heads is an input: no constant tells where x is split."""
    g.model.graph.input.append(helper.make_tensor_value_info("heads", onnx.TensorProto.INT64, [4]))
    g.node[LAST + "Reshape"].input[1] = "heads"


def halves(g):
    """Scores rounded to float16 on their way."""
    g.insert("Cast", SELF + "Softmax", 0, to=onnx.TensorProto.FLOAT16)
    g.insert("Cast", SELF + "Softmax", 0, name="back", to=onnx.TensorProto.FLOAT)


def einsum(g):
    """Weights times values as XLNet's exports spell it."""
    g.node[SELF + "MatMul_1"].op_type = "Einsum"
    g.set(SELF + "MatMul_1", equation="bntT,bnTh->bnth")


def rearrange(g):
    """Operators between the weights and the values' MatMul, as where Longformer lays a band out."""
    for name in ("first", "second", "third"):
        g.insert("Neg", SELF + "MatMul_1", 0, name=name)


def mean_over_tokens(g):
    for mean in ("ReduceMean", "ReduceMean_1"):
        g.set(NORM + mean, axes=[1])


CASES = [  # what is broken, how, kind, node where matching stops, reason, whether an operator exists for it
    ("an operator between scores and Softmax", lambda g: g.insert("Relu", SELF + "Softmax", 0), "attention", "broken",
     "the scores are not a product", True),
    ("an operator between MatMul and mask", lambda g: g.insert("Tanh", SELF + "Add", 0), "attention", "broken",
     "the scores are not a product", True),
    ("a scale after the mask", lambda g: g.insert("Mul", SELF + "Softmax", 0, constant=0.5), "attention", "broken",
     "the scores are not a product", True),
    ("values that are scaled", lambda g: g.insert("Mul", SELF + "MatMul_1", 1, constant=2.0), "attention", "broken",
     "the values are scaled", True),
    ("weights and values in an Einsum", einsum, "attention", SELF + "MatMul_1",
     "weights and values meet in an Einsum", True),
    ("weights that are rearranged", rearrange, "attention", SELF + "Softmax", "the attention weights are rearranged", False),
    ("a Softmax over the queries", lambda g: g.set(SELF + "Softmax", axis=2), "attention", SELF + "Softmax",
     "the Softmax is not over the keys", True),
    ("scores scaled head by head", lambda g: g.insert("Mul", SELF + "Add", 0, constant=[[[x]] for x in (1, 2, 3, 4)]),
     "attention",
     "broken", "the scores are not a product", True),
    ("scores that pass through float16", halves, "attention", "back", "the scores are not a product", True),
    ("a mask whose batch lies on the heads", lambda g: g.insert("Transpose", SELF + "Add", 1, perm=[1, 0, 2, 3]),
     "attention", "broken", "what is added to the scores is not", True),
    ("values whose heads and batch are exchanged", lambda g: g.insert("Transpose", LAST + "MatMul_1", 1, perm=[1, 0, 2, 3]),
     "attention", "broken", "the values do not arrive as [b,n,T,h]", True),
    ("heads that an input splits", keep_heads, "attention", LAST + "Reshape", "no Reshape splits the heads", True),
    ("a root over the mean of another axis", mean_over_tokens, "norm", NORM + "ReduceMean_1",
     "what epsilon is added to is no mean over the last axis", True),
    ("heads joined without a Transpose", skip_transpose, "attention", SELF + "Reshape_3", "the heads are not joined", True),
    ("weights that are an output", lambda g: g.output(SELF + "Softmax"), "attention", SELF + "Softmax",
     "the attention weights are an output", False),
    ("an operator under a norm's root", lambda g: g.insert("Abs", NORM + "Sqrt", 0), "norm", "broken",
     "under the root", True),
    ("an operator between squares and mean", lambda g: g.insert("Abs", NORM + "ReduceMean_1", 0), "norm", "broken",
     "the mean is not of squares", True),
    ("a norm whose gamma varies", variable_gamma, "norm", NORM + "Mul", "gamma is not a constant", True),
    ("a GELU with another factor", lambda g: g.insert("Mul", GELU + "Erf", 0, constant=1.1), "GELU", GELU + "Erf",
     "the coefficients", True),
    ("a GELU without its half", lambda g: g.insert("Mul", GELU + "Mul_1", 0, constant=1.5), "GELU", GELU + "Erf",
     "the constant factor differs", True),
    ("a GELU whose gate has another argument", lambda g: g.insert("Relu", GELU + "Erf", 0), "GELU", GELU + "Erf",
     "the gate's argument is not odd in x", True),
    ("words that pass through an operator", lambda g: g.insert("Relu", "/m/bert/embeddings/Add", 0), "embedding", "broken",
     "a summand is not a look-up", True),
]


def explain(program, model, work, *options):
    onnx.save(model, f"{work}/broken.onnx")
    done = subprocess.run([program, "optimize", "--model_path", f"{work}/broken.onnx", "--output", f"{work}/out.onnx",
                           "--explain", "--json", *options], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.returncode, [f for f in json.loads(done.stdout)["explain"] if f["became"] is None]


def main(program, path):
    passed = failed = 0
    whole = Graph(path)
    with tempfile.TemporaryDirectory() as work:
        code, missed = explain(program, whole.model, work)
        rows = [("nothing", code == 0 and not missed, missed)]
        code, missed = explain(program, whole.model, work, "--target", "std")
        reasons = [(f["kind"], f["fusible"], f["reason"][:20]) for f in missed]
        rows.append(("standard operators", code == 0 and reasons == [("embedding", False, "no standard operator")], missed))
        for what, breaks, kind, node, reason, should in CASES:
            g = Graph(path)
            breaks(g)
            code, missed = explain(program, g.model, work)
            good = [f for f in missed if f["kind"] == kind and f["stopped_at"] == node and f["reason"].startswith(reason)]
            rows.append((what, bool(good) and len(missed) == 1 and code == should, missed))
    for what, good, missed in rows:
        passed, failed = passed + good, failed + (not good)
        if not good:
            print(f"FAILED {what}: {json.dumps(missed)}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main(*sys.argv[1:]))
