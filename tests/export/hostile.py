"""What tests of hostile files share: code that must not run, and files made by somebody who knows the formats."""

import json
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto, helper

from edgestill.export.bundle.manifest import manifest_bytes


class Bomb:
    """A pickle of this runs code when it is read."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def one_sentence(error):
    """What a person is told: one line, of a size to read, without what would steer a terminal."""
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 500
    assert text.isprintable()
    return text


def torch_pickle(path, canary):
    torch.save({"linear.weight": Bomb(canary)}, path)


def numpy_pickle(path, canary):
    with path.open("wb") as file:
        np.save(file, np.array([Bomb(canary)], dtype=object), allow_pickle=True)


def model_with(*nodes, tensors=(), given=(1, 4), answer=(1, 4), domains=(), **changes):
    """ONNX from `x` to `y`, made as an attacker would: by hand, unchecked."""
    graph = helper.make_graph(
        nodes or [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, answer)],
        list(tensors),
    )
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **changes)


def external(location, **more):
    tensor = TensorProto(name="w", dims=[1, 4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": location} | more).items():
        tensor.external_data.add(key=key, value=value)
    return model_with(helper.make_node("Add", ["x", "w"], ["y"]), tensors=[tensor])


def rewritten(folder, **files):
    """A bundle with files exchanged by somebody who knows the format: the manifest fits."""
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes(manifest_bytes({p.name: p.read_bytes() for p in folder.iterdir()}))


def card(folder, **changes):
    content = json.loads((folder / "bundle.json").read_text(encoding="utf-8")) | changes
    rewritten(folder, bundle__json=json.dumps(content).encode())
