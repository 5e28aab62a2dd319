"""Model files made to harm whoever opens them: each is refused in one sentence, and nothing in it is run.

Every file that can carry code carries a canary: code that would leave a file behind.
"""

import os
import pickle
import struct

import numpy as np
import onnx
import pytest
from hostile import Bomb, external, model_with, numpy_pickle, one_sentence, torch_pickle
from onnx import TensorProto, helper, numpy_helper

from edgestill.export.bundle.read import check_onnx
from edgestill.pipeline.errors import BundleError


def test_the_canary_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


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
