"""Checks and runs a foreign ONNX file in a child process. Only children of bounded memory import this.

Both libraries are imported here, once, before a child's forks. Opening a session already evaluates a file's constants,
so it belongs here, like the calls.
"""

import json

import numpy as np
import onnx
import onnxruntime  # noqa: F401
from safetensors.numpy import load, save

from edgestill.export.onnx.admission import refusal as refused
from edgestill.export.onnx.ends import Ends
from edgestill.export.onnx.sessions import feed, open_session


def _smallest() -> bytes:
    side = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "smallest", [side], [answer])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


refused(_smallest(), None, (1,), 1)  # does the libraries' first-call work, some 0.3 s, before the forks


def refusal(model: bytes, asked: str) -> bytes:
    """Return the reason to refuse a model, to follow its name in a sentence; empty if it may be opened."""
    given = json.loads(asked)
    ends = given["ends"] and Ends(*given["ends"])
    return (refused(model, ends, given["batches"], given["length"]) or "").encode()


def outputs(model: bytes, inputs: bytes, asked: str) -> bytes:
    """Return the named outputs of a checked model as safetensors; inputs run together or one by one."""
    given, how = load(inputs)["inputs"], json.loads(asked)
    session = open_session(model)
    batches = [single[None] for single in given] if how["singly"] else [given]
    found = [session.run(how["names"], feed(batch, session)) for batch in batches]
    return save(
        {name: np.concatenate(parts) for name, parts in zip(how["names"], zip(*found, strict=True), strict=True)}
    )
