"""one_node.py: models of one node, random inputs for them, and what ONNX Runtime answers."""
import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

ort.set_default_logger_severity(4)
MS = "com.microsoft"
rng = np.random.default_rng(5)


def floats(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def ints(*values, dtype=np.int64):
    return np.array(values, dtype)


def codes(*shape, dtype=np.uint8):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def number(x, dtype=np.float32):
    return np.array(x, dtype)


def make_model(op, inputs, n_out=1, domain="", version=17, **attributes):
    names = ["" if v is None else f"i{i}" for i, v in enumerate(inputs)]
    outputs = [f"o{i}" for i in range(n_out)]
    node = helper.make_node(op, names, outputs, domain=domain, **attributes)
    ports = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
             for n, v in zip(names, inputs) if v is not None]
    graph = helper.make_graph([node], op, ports, [onnx.ValueInfoProto(name=o) for o in outputs])
    imports = [helper.make_opsetid("", version), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8 if version > 8 else 3)


def run(op, inputs, **settings):
    model = make_model(op, inputs, **settings)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {f"i{i}": v for i, v in enumerate(inputs) if v is not None})
