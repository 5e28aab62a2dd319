"""Files made to harm whoever opens them: each is refused in one sentence, and nothing in it is run.

Every file that can carry code carries a canary: code that would leave a file behind.
"""

import json
import os
import pickle
import stat
import struct
import sys
import time
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.files import MAX_FILES, MAX_TOTAL_BYTES, zip_bytes
from export.manifest import canonical, manifest_bytes
from export.onnx_gate import check_onnx_bytes
from export.onnx_sizes import Ends
from export.predict import predict
from export.reading import check_onnx, open_bundle
from export.strict_json import parse_json
from export.verify import verify
from pipeline.errors import BundleError, ConfigError, DataError, ExportError, UserError
from pipeline.tokens import Coder


class Bomb:
    """A pickle of this runs code when it is read."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path):
    """What code in a hostile file would leave behind; the test fails if it does."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code in a hostile file was run"


def one_sentence(error):
    """What a person is told: one line, of a size to read, without what would steer a terminal."""
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 500
    assert text.isprintable()
    return text


def test_the_canary_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


# Model files


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


def external_in_an_attribute():
    tensor = TensorProto(name="w", dims=[1, 4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.append(helper.make_attribute("value", tensor))
    return model_with(constant, helper.make_node("Add", ["x", "w"], ["y"]))


def declared(shape, values, kind=TensorProto.FLOAT):
    tensor = TensorProto(name="w", dims=shape, data_type=kind, raw_data=np.array(values, np.float32).tobytes())
    return model_with(helper.make_node("Add", ["x", "w"], ["y"]), tensors=[tensor])


def branch(nodes, name="b"):
    return helper.make_graph(
        nodes, name, [], [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    )


def nested(depth):
    """Ifs in Ifs."""
    inner = branch([helper.make_node("Identity", ["x"], ["leaf"])])
    for level in range(depth):
        node = helper.make_node("If", ["c"], [f"o{level}"], then_branch=inner, else_branch=inner)
        inner = branch([node])
    condition = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    return model_with(node, tensors=[condition])


def endless(kind):
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, (1, 4)),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, (1, 4)),
        ],
    )
    rounds = numpy_helper.from_array(np.array(2**62), "n")
    true = numpy_helper.from_array(np.array(True), "t")
    return model_with(helper.make_node(kind, ["n", "t", "x"], ["y"], body=body), tensors=[rounds, true])


def computes_too_much():
    shape = numpy_helper.from_array(np.array([10**6, 10**6]), "s")
    return model_with(helper.make_node("ConstantOfShape", ["s"], ["w"]), helper.make_node("Add", ["x", "w"], ["y"]),
                      tensors=[shape])  # fmt: skip


def tiled(repeats, given=("batch", 4000)):
    counts = numpy_helper.from_array(np.array(repeats), "r")
    return model_with(helper.make_node("Tile", ["x", "r"], ["y"]), tensors=[counts], given=given, answer=("a", "b"))


def computes_a_shape_in_fractions():
    """Whose values shape inference does not follow."""
    shape = numpy_helper.from_array(np.float32([99999.5, 99999.5]), "s")
    return model_with(
        helper.make_node("Ceil", ["s"], ["c"]),
        helper.make_node("Cast", ["c"], ["n"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["n"], ["w"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
        tensors=[shape],
        answer=("a", "b"),
    )


def with_function():
    function = helper.make_function(
        "ai.onnx", "Mine", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    return model_with(functions=[function])


def with_training():
    model = model_with()
    model.training_info.add()
    return model


def sparse():
    model = model_with()
    model.graph.sparse_initializer.add(dims=[10**9], values=numpy_helper.from_array(np.ones(1, np.float32), "v"))
    return model


def deep_protobuf():
    """Length-delimited field 7 (a graph) in itself, which a careless parser follows until its stack ends."""
    data = b""
    for _ in range(3000):
        size, length = len(data), b""
        while True:
            length += bytes([size & 127 | (128 if size > 127 else 0)])
            size >>= 7
            if not size:
                break
        data = b"\x3a" + length + data
    return data


MODELS = {
    "external data above the folder": lambda: external("../../etc/passwd"),
    "external data by an absolute path": lambda: external("/etc/passwd"),
    "external data beside it": lambda: external("weights.bin"),
    "external data with an enormous offset": lambda: external("weights.bin", offset=str(2**62), length=str(2**62)),
    "external data in an attribute": external_in_an_attribute,
    "an operator of a custom domain": lambda: model_with(
        helper.make_node("Run", ["x"], ["y"], domain="evil.corp"), domains=["evil.corp"]
    ),
    "a custom domain that no operator uses": lambda: model_with(domains=["evil.corp"]),
    "a custom operator behind ONNX Runtime's domain": lambda: model_with(
        helper.make_node("PyOp", ["x"], ["y"], domain="com.microsoft"), domains=["com.microsoft"]
    ),
    "Python in an operator of ATen": lambda: model_with(
        helper.make_node("ATen", ["x"], ["y"], domain="org.pytorch.aten"), domains=["org.pytorch.aten"]
    ),
    "an operator that ONNX does not have": lambda: model_with(helper.make_node("Exec", ["x"], ["y"])),
    "a function of its own": with_function,
    "a training graph": with_training,
    "a sparse tensor": sparse,
    "a tensor of 10^12 elements that holds four": lambda: declared([10**6, 10**6], [1, 2, 3, 4]),
    "a tensor whose sides overflow 64 bits": lambda: declared([2**40, 2**40], [1, 2, 3, 4]),
    "a tensor with a negative side": lambda: declared([-1, 4], [1, 2, 3, 4]),
    "a tensor that holds more than it declares": lambda: declared([2], [1, 2, 3, 4]),
    "a tensor of no known type": lambda: declared([4], [1, 2, 3, 4], kind=99),
    "a tensor of 100,000 sides, which multiply to more digits than Python prints": lambda: declared(
        [2**31] * 10**5, [1]
    ),
    "a graph that computes 10^12 elements": computes_too_much,
    "a tile of a side that is open": lambda: tiled([4096, 65536]),
    "a shape that is computed in fractions": computes_a_shape_in_fractions,
    "a loop of 2^62 rounds": lambda: endless("Loop"),
    "graphs in graphs": lambda: nested(6),
    "a cycle": lambda: model_with(helper.make_node("Add", ["x", "y"], ["z"]), helper.make_node("Relu", ["z"], ["y"])),
    "an operator set from the future": lambda: helper.make_model(
        model_with().graph, opset_imports=[helper.make_opsetid("", 9999)]
    ),
    "a format from the future": lambda: onnx.ModelProto(ir_version=9999, graph=model_with().graph),
    "no operators": lambda: onnx.ModelProto(ir_version=10),
}


REASONS = {  # a word of the sentence, where it is not the name's own
    "external data": "in another file",
    "custom domain": "evil.corp",
    "ONNX Runtime's domain": "com.microsoft.PyOp",
    "ATen": "org.pytorch.aten.ATen",
    "ONNX does not have": "Exec",
    "function": "defines functions of its own",
    "holds four": "elements and holds 4",
    "overflow": "with more than 16 sides or one above 2,147,483,648",
    "100,000 sides": "with more than 16 sides",
    "a tile": "computes the tensor 'y' of 1,073,741,824,000 elements",
    "fractions": "by ConstantOfShape, and how large it becomes cannot be told",
    "more than it declares": "2 elements and holds 4",
    "no known type": "of a type that is not known",
    "negative": "negative side",
    "computes": "computes the tensor 'w' of 1,000,000,000,000 elements",
    "loop": "a Loop, which need not end",
    "graphs in graphs": "nests graphs more than 4 deep",
    "cycle": "topologically sorted",
    "operator set": "operator set 9999",
    "format from the future": "ir_version",
    "no operators": "no operator in it",
    "training": "training graph",
    "sparse": "sparse tensor",
}


@pytest.mark.parametrize("name", MODELS)
def test_a_hostile_model_is_refused_with_its_reason(name, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(MODELS[name]().SerializeToString())
    with pytest.raises(BundleError) as caught:
        check_onnx(path)
    text = one_sentence(caught.value)
    assert text.startswith("model.onnx ")
    assert next(reason for part, reason in REASONS.items() if part in name) in text


def test_the_same_model_without_harm_is_not_refused(tmp_path):
    """Or the ones above might be refused for something else."""
    path = tmp_path / "model.onnx"
    for model in (model_with(), declared([1, 4], [1, 2, 3, 4]), nested(2)):
        path.write_bytes(model.SerializeToString())
        assert check_onnx(path) == path.read_bytes()


ENDS = Ends({"x": ("FLOAT", (4,))}, {"y": ("FLOAT", (4,))})


def spread(count):
    """`count` times x + x transposed, which grows to [B, 4 * 4, …] where nothing said so."""
    nodes, name = [], "x"
    for step in range(count):
        axes = f"axes{step}"
        nodes += [
            helper.make_node("Unsqueeze", [name, "first"], [f"rows{step}"]),
            helper.make_node("Unsqueeze", [name, "last"], [f"columns{step}"]),
            helper.make_node("Add", [f"rows{step}", f"columns{step}"], [f"all{step}"]),
            helper.make_node("Reshape", [f"all{step}", "flat"], [axes]),
        ]
        name = axes
    constants = {"first": [1], "last": [2], "flat": [0, -1]}
    return model_with(
        *nodes,
        helper.make_node("ReduceMean", [name], ["mean"]),
        helper.make_node("Add", ["x", "mean"], ["y"]),
        tensors=[numpy_helper.from_array(np.array(values), key) for key, values in constants.items()],
        given=("batch", 4),
        answer=("batch", 4),
    )


def large_for_a_small_batch():
    """(17 - B)^8 elements: one for the probes, and 2^32 for a single example."""
    names = {"most": [17] * 8, "flat": [1, -1]}
    return model_with(
        helper.make_node("Shape", ["x"], ["b"], start=0, end=1),
        helper.make_node("Sub", ["most", "b"], ["sides"]),
        helper.make_node("ConstantOfShape", ["sides"], ["wide"]),
        helper.make_node("Reshape", ["wide", "flat"], ["row"]),
        helper.make_node("ReduceMean", ["row"], ["mean"]),
        helper.make_node("Add", ["x", "mean"], ["y"]),
        tensors=[numpy_helper.from_array(np.array(values), name) for name, values in names.items()],
        given=("batch", 4),
        answer=("batch", 4),
    )


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: spread(4), "elements; at most 268,435,456 are allowed"),
        (large_for_a_small_batch, "elements; at most 268,435,456 are allowed"),
        (lambda: model_with(helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Relu", ["x"], ["y"]),
                            given=("b", 4), answer=("b", 4)), "by NonZero, and how large it becomes cannot be told"),
        (lambda: model_with(), "has other x than FLOAT [batch, 4]"),
        (lambda: model_with(given=("b", 5)), "has other x than FLOAT [batch, 4]"),
        (lambda: model_with(helper.make_node("ReduceMean", ["x"], ["y"]), given=("b", 4), answer=("a", "b")),
         "has other y than FLOAT [batch, 4]"),
    ],
)  # fmt: skip
def test_in_a_bundle_the_size_of_all_that_a_file_computes_follows_from_its_task(model, reason):
    with pytest.raises(BundleError) as caught:
        check_onnx_bytes(model().SerializeToString(), "model.onnx", ENDS)
    assert reason in one_sentence(caught.value)


def test_a_graph_of_known_sizes_is_not_refused():
    for model in (model_with(given=("b", 4), answer=("b", 4)), spread(2)):
        check_onnx_bytes(model.SerializeToString(), "model.onnx", ENDS)


def positions(start):
    """Of tokens, as the exporter writes them: Range(0, the length of the text, 1)."""
    numbers = {"start": np.array(start), "step": np.array(1)}
    return model_with(
        helper.make_node("Shape", ["x"], ["side"], start=1, end=2),
        helper.make_node("Squeeze", ["side"], ["length"]),
        helper.make_node("Range", ["start", "length", "step"], ["positions"]),
        helper.make_node("Cast", ["positions"], ["p"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["p"], ["mean"]),
        helper.make_node("Add", ["x", "mean"], ["y"]),
        tensors=[numpy_helper.from_array(value, name) for name, value in numbers.items()],
        given=("batch", "length"),
        answer=("batch", "length"),
    )


def test_token_positions_have_a_known_size():
    check_onnx_bytes(positions(0).SerializeToString(), "model.onnx", ENDS)


def long_vector():
    sides = numpy_helper.from_array(np.array([10**9]), "sides")
    return model_with(
        helper.make_node("ConstantOfShape", ["sides"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["w"], ["mean"]),
        helper.make_node("Add", ["x", "mean"], ["y"]),
        tensors=[sides],
    )


def followed_vector(factor):
    """Of as many elements as x has sides, times the factor; told only by following values."""
    return model_with(
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Shape", ["h"], ["side"], start=1, end=2),
        helper.make_node("Mul", ["side", "factor"], ["many"]),
        helper.make_node("ConstantOfShape", ["many"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["w"], ["mean"]),
        helper.make_node("Add", ["x", "mean"], ["y"]),
        tensors=[numpy_helper.from_array(np.array([factor]), "factor")],
        given=("batch", 4),
        answer=("batch", 4),
    )


def test_sizes_that_follow_from_values_are_told():
    check_onnx_bytes(followed_vector(2).SerializeToString(), "model.onnx", ENDS)


@pytest.mark.parametrize("model", [long_vector, lambda: positions(-(10**9))], ids=["ConstantOfShape", "Range"])
def test_what_is_too_large_is_told_without_following_its_values(model, monkeypatch):
    monkeypatch.setattr("export.onnx_sizes.subprocess", None)
    with pytest.raises(BundleError, match="elements; at most 268,435,456 are allowed"):
        check_onnx_bytes(model().SerializeToString(), "model.onnx")


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of memory are Linux's")
def test_following_values_takes_no_more_memory_than_it_is_given():
    """ONNX's shape inference follows each value of a vector; of one with 10^9 that took 23 GB."""
    import resource

    data = followed_vector(10**8).SerializeToString()
    with pytest.raises(BundleError, match="needs more memory than it is given"):
        check_onnx_bytes(data, "model.onnx", ENDS)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3 << 20  # KiB; of the largest so far


def torch_pickle(path, canary):
    torch.save({"linear.weight": Bomb(canary)}, path)


def numpy_pickle(path, canary):
    with path.open("wb") as file:
        np.save(file, np.array([Bomb(canary)], dtype=object), allow_pickle=True)


NOT_MODELS = {
    "a pickle": lambda path, canary: path.write_bytes(pickle.dumps(Bomb(canary))),
    "a pickle of the oldest protocol": lambda path, canary: path.write_bytes(pickle.dumps(Bomb(canary), 0)),
    "a torch checkpoint": torch_pickle,
    "a numpy file of objects": numpy_pickle,
    "a program": lambda path, canary: path.write_bytes(b"\x7fELF" + bytes(100)),
    "a script": lambda path, canary: path.write_bytes(f"#!/bin/sh\ntouch {canary}\n".encode()),
    "an ORT-format model": lambda path, canary: path.write_bytes(struct.pack("<I", 24) + b"ORTM" + bytes(100)),
    "nothing": lambda path, canary: path.write_bytes(b""),
    "graphs in graphs without an end": lambda path, canary: path.write_bytes(deep_protobuf()),
    "half of a model": lambda path, canary: path.write_bytes(declared([1, 4], [1, 2, 3, 4]).SerializeToString()[:-20]),
    "a pipe": lambda path, canary: os.mkfifo(path),
    "a folder": lambda path, canary: path.mkdir(),
    "a link to a device": lambda path, canary: path.symlink_to("/dev/zero"),
    "a sparse file of 100 GB": lambda path, canary: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 10**11),
    "a YAML tag": lambda path, canary: path.write_text(f"!!python/object/apply:os.system ['touch {canary}']"),
}


@pytest.mark.parametrize("name", NOT_MODELS)
def test_what_is_no_model_is_refused_whatever_its_name_says(name, tmp_path, canary):
    path = tmp_path / "model.onnx"
    NOT_MODELS[name](path, canary)
    with pytest.raises(BundleError) as caught:
        check_onnx(path)
    one_sentence(caught.value)


def test_operators_of_a_quantized_model_are_not_refused(tmp_path):
    """The gate keeps out what is hostile, not what is unusual."""
    path = tmp_path / "model.onnx"
    scale, zero = numpy_helper.from_array(np.float32([0.1]), "s"), numpy_helper.from_array(np.uint8([3]), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], domain="com.microsoft"),
    ]
    path.write_bytes(model_with(*nodes, tensors=[scale, zero], domains=["com.microsoft"]).SerializeToString())
    check_onnx(path)


# Bundles' folders


def rewritten(folder, **files):
    """A bundle with files exchanged by somebody who knows the format: the manifest fits."""
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes(manifest_bytes({p.name: p.read_bytes() for p in folder.iterdir()}))


def card(folder, **changes):
    content = json.loads((folder / "bundle.json").read_text(encoding="utf-8")) | changes
    rewritten(folder, bundle__json=json.dumps(content).encode())


def first_model(folder, **changes):
    models = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["models"]
    card(folder, models={"fp32": models["fp32"] | changes})


def models(folder, **added):
    known = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["models"]
    card(folder, models=known | {name: known["fp32"] | changes for name, changes in added.items()})


def task(folder, **changes):
    known = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    described = known["task"] | changes
    channels, height, width = described["input_shape"]
    shape = ["batch", channels, height, width]
    card(folder, task=described, input=known["input"] | {"shape": shape})


def exchanged(folder, model):
    """Another model, with the card's number of bytes."""
    data = model.SerializeToString()
    first_model(folder, bytes=len(data))
    rewritten(folder, model__onnx=data)


def classifier(classes, batch="batch", bias=0.0):
    """Images of the fixture's bundle to logits that are the mean of their pixels, and a bias."""
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, (batch, 3, 10, 8))
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (batch, classes))
    constants = {"sides": np.array([1, 2, 3]), "last": np.array([1]), "w": np.full((1, classes), bias, np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["images", "sides"], ["m"], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "last"], ["column"]),
        helper.make_node("Add", ["column", "w"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [given], [answer], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def crowded_manifest(folder):
    (folder / "manifest.json").unlink()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "manifest.json").write_bytes(manifest_bytes(files | {f"\x1b{n}": b"" for n in range(1000)}))


def manifest_with(folder, name, data=b"evil"):
    """A manifest that lists a file of this name, correctly sealed."""
    import hashlib

    files = json.loads((folder / "manifest.json").read_text())
    files.pop("digest")
    files["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    digest = hashlib.sha256(canonical(files)).hexdigest()
    (folder / "manifest.json").write_bytes(canonical(files | {"digest": digest}))


def linked(folder, target):
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").symlink_to(target)


def twice(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('{\n "digest"', '{\n "schema": "x",\n "digest"', 1))


def many(folder):
    for number in range(MAX_FILES + 1):
        (folder / f"file{number}").write_bytes(b"")


def oversized(folder):
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(MAX_TOTAL_BYTES + 1)


def enormous_probes():
    header = json.dumps({"inputs": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    return struct.pack("<Q", len(header)) + header


FOLDERS = {
    "a link to a file outside": lambda f, c: linked(f, "/etc/passwd"),
    "a link to a file inside": lambda f, c: linked(f, "run.py"),
    "a link to nothing": lambda f, c: linked(f, "nowhere"),
    "a folder in it": lambda f, c: (f / "sub").mkdir(),
    "a pipe in it": lambda f, c: os.mkfifo(f / "pipe"),
    "a hidden file": lambda f, c: (f / ".hidden").write_bytes(b""),
    "a file that the manifest does not list": lambda f, c: (f / "evil.py").write_bytes(b""),
    "a name that steers a terminal": lambda f, c: (f / "\x1b[2Jevil").write_bytes(b""),
    "too many files": lambda f, c: many(f),
    "an oversized file": lambda f, c: oversized(f),
    "a manifest that lists a file above the folder": lambda f, c: manifest_with(f, "../../etc/passwd"),
    "a manifest that lists an absolute path": lambda f, c: manifest_with(f, "/etc/passwd"),
    "a manifest of another schema": lambda f, c: (f / "manifest.json").write_text('{"schema": "other/9"}'),
    "a manifest with a key twice": lambda f, c: twice(f),
    "a manifest that nests without an end": lambda f, c: (f / "manifest.json").write_bytes(b'{"a":' * 10**5),
    "a manifest that is a list": lambda f, c: (f / "manifest.json").write_bytes(b"[]"),
    "an empty manifest": lambda f, c: (f / "manifest.json").write_bytes(b""),
    "no manifest": lambda f, c: (f / "manifest.json").unlink(),
    "a manifest in UTF-16": lambda f, c: (f / "manifest.json").write_bytes('{"schema": 1}'.encode("utf-16")),
    "a card of an unknown schema": lambda f, c: card(f, schema="edgestill.bundle/99"),
    "a card with a key that is not known": lambda f, c: card(f, hook="rm -rf /"),
    "a card with NaN": lambda f, c: card(f, created=float("nan")),
    "a card that nests deep": lambda f, c: card(f, methods=json.loads("[" * 200 + "]" * 200)),
    "a card with a YAML tag": lambda f, c: rewritten(
        f, bundle__json=f"!!python/object/apply:os.system ['touch {c}']".encode()
    ),
    "a card that is a pickle": lambda f, c: rewritten(f, bundle__json=pickle.dumps(Bomb(c))),
    "a card whose model lies outside": lambda f, c: first_model(f, file="../model.onnx"),
    "a card whose model lies at an absolute path": lambda f, c: first_model(f, file="/etc/passwd"),
    "a card whose model is the script": lambda f, c: first_model(f, file="run.py"),
    "a card that calls the model an engine": lambda f, c: first_model(f, runtime="tensorrt"),
    "a card of a format that is not known": lambda f, c: (
        (f / "model.ort").write_bytes(b"any"),
        models(f, x={"format": "x", "file": "model.ort", "bytes": 3}),
    ),
    "a card whose input is larger than memory": lambda f, c: task(f, input_shape=[3, 10**5, 10**5]),
    "a card whose input has no side": lambda f, c: task(f, input_shape=[3, 0, 8]),
    "a card with another number of bytes": lambda f, c: first_model(f, bytes=7),
    "a model of other inputs": lambda f, c: exchanged(f, model_with(given=("b", 4), answer=("b", 6))),
    "a model of more logits than labels": lambda f, c: exchanged(f, classifier(7)),
    "a model that only works for one image": lambda f, c: exchanged(f, classifier(6, batch=1)),
    "a manifest that steers a terminal": lambda f, c: manifest_with(f, "\x1b[2Jevil\x07"),
    "a manifest of a thousand files that are not there": lambda f, c: crowded_manifest(f),
    "a model of a domain that steers a terminal": lambda f, c: exchanged(
        f, model_with(helper.make_node("Run", ["x"], ["y"], domain="\x1b[2J"), domains=["\x1b[2J"])
    ),
    "a card without its default model": lambda f, c: card(f, default="int8"),
    "labels that are not the card's": lambda f, c: rewritten(f, labels__txt=b"good\nbad\n"),
    "a model that is a pickle": lambda f, c: rewritten(f, model__onnx=pickle.dumps(Bomb(c))),
    "a model with external data": lambda f, c: rewritten(f, model__onnx=external("/etc/passwd").SerializeToString()),
    "a second model that nothing speaks of": lambda f, c: rewritten(f, more__onnx=pickle.dumps(Bomb(c))),
    "probes that are a pickle": lambda f, c: rewritten(f, probes__safetensors=pickle.dumps(Bomb(c))),
    "probes of 2^40 elements": lambda f, c: rewritten(f, probes__safetensors=enormous_probes()),
    "probes with an endless header": lambda f, c: rewritten(f, probes__safetensors=struct.pack("<Q", 2**63) + b"{}"),
    "a signature that is a pickle": lambda f, c: (f / "manifest.sig").write_bytes(pickle.dumps(Bomb(c))),
    "a signature of nothing": lambda f, c: (f / "manifest.sig").write_bytes(
        canonical({"schema": "edgestill.signature/1", "public_key": "", "signature": ""})
    ),
    "a signature by a point that is no key": lambda f, c: (f / "manifest.sig").write_bytes(
        canonical({"schema": "edgestill.signature/1", "public_key": "/" * 42 + "8=", "signature": "A" * 86 + "=="})
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_folder_is_a_difference_for_verify_and_opens_nowhere(name, bundles, copy_of, canary):
    folder = copy_of(bundles(3))
    FOLDERS[name](folder, canary)
    problems = verify(folder).problems
    assert problems
    for problem in problems:
        one_sentence(problem)
    if "probes" not in name:  # which only verify reads
        with pytest.raises(BundleError):
            open_bundle(folder)


def test_many_problems_are_told_as_ten_and_a_number(bundles, copy_of):
    folder = copy_of(bundles(3))
    crowded_manifest(folder)
    assert len(verify(folder).problems) == 11
    with pytest.raises(BundleError, match=r"\nand 990 more$"):
        open_bundle(folder)


def test_a_model_whose_answers_are_not_numbers_is_an_error_in_words(bundles, copy_of, tmp_path):
    folder = copy_of(bundles(3))
    exchanged(folder, classifier(6, bias=np.nan))
    np.save(tmp_path / "image.npy", np.zeros((10, 8, 3), np.uint8))
    with open_bundle(folder) as opened, pytest.raises(ExportError, match=r"gives logits \[1, 6\], not \[1, 6\] finite"):
        predict(opened, [str(tmp_path / "image.npy")])
    assert "finite ones" in verify(folder).problems[0]


def test_probabilities_that_are_not_those_of_the_logits_are_a_difference(bundles, copy_of):
    folder = copy_of(bundles(3, "image"))
    model = onnx.load(folder / "model.onnx")
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax.op_type = "Sigmoid"
    del softmax.attribute[:]
    exchanged(folder, model)
    (problem,) = verify(folder).problems
    assert "probabilities that are not the softmax of its logits" in problem


# Zips


def entry(name, mode=stat.S_IFREG | 0o644, **changes):
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, mode << 16
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def repacked(files, path, extra=(), method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(entry(name), data, compress_type=method)
        for info, data in extra:
            archive.writestr(info, data, compress_type=method)


def patched(files, path, old, new):
    data = zip_bytes(files)
    assert old in data
    path.write_bytes(data.replace(old, new))


def overlapping(files, path):
    """Fifield's bomb in small: many entries of the directory point to one file's bytes."""
    data = zip_bytes({"a": bytes(100_000)})
    end = data.index(b"PK\x01\x02")
    record = data[end : data.index(b"PK\x05\x06")]
    records = b"".join(record[:46] + bytes([97 + n]) + record[47:] for n in range(20))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 20, 20, len(records), end, 0)
    path.write_bytes(data[:end] + records + tail)


def lying(files, path):
    """An entry that says it holds 2^31 bytes."""
    data = bytearray(zip_bytes(files))
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)


def crowded(files, path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3000):
            archive.writestr(f"f{number}", b"")


ZIPS = {
    "a name above the folder": lambda files, path: repacked(files, path, [(entry("../evil.py"), b"")]),
    "an absolute name": lambda files, path: repacked(files, path, [(entry("/etc/cron.d/evil"), b"")]),
    "a Windows drive": lambda files, path: repacked(files, path, [(entry("C:\\evil.py"), b"")]),
    "a backslash": lambda files, path: repacked(files, path, [(entry("..\\evil.py"), b"")]),
    "a folder": lambda files, path: repacked(files, path, [(entry("sub/evil.py"), b"")]),
    "a link": lambda files, path: repacked(files, path, [(entry("evil", stat.S_IFLNK | 0o777), b"/etc/passwd")]),
    "a file twice": lambda files, path: repacked(files, path, [(entry("run.py"), b"evil")]),
    "a bomb of 100 MB in 100 kB": lambda files, path: repacked(
        files, path, [(entry("bomb.bin"), bytes(10**8))], zipfile.ZIP_DEFLATED
    ),
    "bzip2": lambda files, path: repacked(files, path, method=zipfile.ZIP_BZIP2),
    "entries that overlap": overlapping,
    "an entry that says 2 GB": lying,
    "thousands of entries": crowded,
    "another name in the directory than before the data": lambda files, path: path.write_bytes(
        zip_bytes(files).replace(b"labels.txt", b"lobels.txt", 1)
    ),
    "a damaged checksum": lambda files, path: patched(files, path, files["labels.txt"], files["labels.txt"].upper()),
    "something before it": lambda files, path: path.write_bytes(b"#!/bin/sh\n" + zip_bytes(files)),
    "something after it": lambda files, path: path.write_bytes(zip_bytes(files) + b"more"),
    "a comment": lambda files, path: path.write_bytes(zip_bytes(files)[:-2] + b"\x04\x00more"),
    "half of it": lambda files, path: path.write_bytes(zip_bytes(files)[:-5000]),
    "a NUL in a name": lambda files, path: patched(files, path, b"labels.txt", b"labe\0s.txt"),
    "an encrypted entry": lambda files, path: path.write_bytes(
        zip_bytes(files).replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    ),
    "no zip at all": lambda files, path: path.write_bytes(b"PK, but not really"),
    "a sparse file of 100 GB": lambda files, path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 10**11),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_zip_is_refused(name, bundles, tmp_path):
    folder = bundles(3).folder
    before = set(tmp_path.rglob("*"))
    path = tmp_path / "bundle.zip"
    ZIPS[name]({p.name: p.read_bytes() for p in folder.iterdir()}, path)
    problems = verify(path).problems
    assert problems
    for problem in problems:
        one_sentence(problem)
    assert set(tmp_path.rglob("*")) == before | {path}


# JSON, images, texts, configuration, weights


JSON = {
    "NaN": b'{"a": NaN}',
    "infinity": b"[-Infinity]",
    "a number beyond all bounds": b"[1e999]",
    "an integer of a million digits": b"[" + b"9" * 10**6 + b"]",
    "a key twice": b'{"a": 1, "a": 2}',
    "depth beyond the stack": b"[" * 10**6,
    "depth within the stack": b"[" * 40 + b"]" * 40,
    "half of a surrogate pair": b'["\\ud800"]',
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "Latin-1": b'["\xe9"]',
    "a second value": b"{} {}",
    "a YAML tag": b"!!python/object/apply:os.system ['true']",
}


def test_a_key_twice_among_very_many_is_found_at_once():
    keys = [f'"{number}": 0' for number in range(200_000)]
    began = time.perf_counter()
    with pytest.raises(BundleError, match="the key '199999' is there twice"):
        parse_json(f"{{{', '.join([*keys, keys[-1]])}}}".encode(), "x.json")
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("name", JSON)
def test_hostile_json_has_no_meaning(name):
    with pytest.raises(BundleError, match=r"^x\.json is not JSON that is read here") as caught:
        parse_json(JSON[name], "x.json")
    one_sentence(caught.value)


def hostile_images(folder, canary):
    numpy_pickle(folder / "objects.npy", canary)
    np.savez(folder / "archive.npz", np.array([Bomb(canary)], dtype=object))
    (folder / "pickle.png").write_bytes(pickle.dumps(Bomb(canary)))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    (folder / "enormous.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    code = b"{'descr': __import__('os').system('touch canary'), 'fortran_order': False, 'shape': (1,)}".ljust(117)
    (folder / "code.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(code)) + code)
    size = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    (folder / "enormous.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + size + bytes(4))
    script = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({canary}) (w) file closefile\n"
    (folder / "script.eps").write_text(script)
    os.mkfifo(folder / "pipe.png")
    return sorted(path for path in folder.iterdir())


def test_hostile_images_are_refused_by_predict(bundles, tmp_path, canary):
    (tmp_path / "images").mkdir()
    paths = hostile_images(tmp_path / "images", canary)
    assert len(paths) == 8
    with open_bundle(bundles(3).folder) as opened:
        for path in [*paths, Path("/dev/zero")]:
            with pytest.raises(DataError, match="not an image that is read here") as caught:
                predict(opened, [str(path)])
            one_sentence(caught.value)


@pytest.mark.parametrize(
    "data", [b"{}", b'{"model": {"type": "Exec"}}', b"[" * 10**5, b"\xff\xfe", b'{"version": "9"}']
)
def test_a_hostile_tokenizer_is_refused(text_bundle, copy_of, data):
    folder = copy_of(text_bundle)
    rewritten(folder, tokenizer__json=data)
    with pytest.raises(UserError) as caught, open_bundle(folder) as opened:
        predict(opened, ["a film"])
    one_sentence(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t["truncation"].update(max_length=10**12), "cuts at 1000000000000 tokens"),
        (lambda t: (t["model"]["vocab"].clear(), t["added_tokens"].clear()), "tokenizer.json"),
        (lambda t: t["model"]["vocab"].update({"evil": 10**6}), "gives 1,000,001 ids"),
        (lambda t: t.pop("truncation"), "does not say at which length it cuts"),
    ],
)
def test_a_tokenizer_that_does_not_fit_the_model_opens_nowhere(text_bundle, copy_of, change, reason):
    folder = copy_of(text_bundle)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    rewritten(folder, tokenizer__json=json.dumps(content).encode())
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert reason in one_sentence(caught.value)


def test_another_tokenizer_of_the_same_size_is_found_by_its_digest(text_bundle, copy_of):
    folder, sha256 = copy_of(text_bundle), Coder((text_bundle.folder / "tokenizer.json").read_text("utf-8")).sha256
    known = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["task"]
    card(folder, task=known | {"tokenizer_sha256": sha256})
    open_bundle(folder).close()
    card(folder, task=known | {"tokenizer_sha256": "0" * 64})
    with pytest.raises(BundleError, match=r"is another one than bundle\.json says"):
        open_bundle(folder)


def test_ids_beyond_the_vocabulary_are_not_given_to_the_model(text_bundle, copy_of):
    folder = copy_of(text_bundle)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[E]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[E]": {"id": "[E]", "ids": [10**6], "tokens": ["[E]"]}},
    }
    rewritten(folder, tokenizer__json=json.dumps(content).encode())
    with open_bundle(folder) as opened, pytest.raises(BundleError, match="gives the id 1000000; the model has ids"):
        predict(opened, ["a film"])


def test_yaml_tags_in_a_configuration_run_nothing(tmp_path, canary):
    from flows.config import load_config

    laughs = "device: [&a [x]"
    for before, after in pairwise("abcdefghij"):
        laughs += f", &{after} [" + ", ".join([f"*{before}"] * 9) + "]"
    laughs += "]\nseed: *j"  # 9^9 elements to whoever follows it
    for text in (
        f"!!python/object/apply:pathlib.Path.touch [{canary}]",
        f"seed: !!python/object/apply:os.system ['touch {canary}']",
        "seed: !!python/name:os.system",
        "name: !evil x",
        "[" * 5000,
        laughs,
    ):
        (tmp_path / "run.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "run.yaml")
        for problem in caught.value.problems:
            one_sentence(problem)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.npz"])
def test_weights_that_are_pickles_run_nothing(name, tmp_path, canary):
    from pipeline.checkpoint import read_weights

    torch_pickle(tmp_path / name, canary)
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path / name)
    one_sentence(caught.value)


def test_there_are_at_least_fifty_hostile_files_and_many_of_each_kind():
    kinds = (MODELS, NOT_MODELS, FOLDERS, ZIPS, JSON)
    assert min(map(len, kinds)) >= 10
    assert sum(map(len, kinds)) >= 100
