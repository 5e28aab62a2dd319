"""Models whose tensors become larger than memory are refused before anything of them is computed."""

import sys

import numpy as np
import onnx
import pytest
from hostile import model_with, one_sentence
from onnx import TensorProto, helper, numpy_helper

from edgestill.export.onnx.admission import check_onnx_bytes
from edgestill.export.onnx.ends import Ends
from edgestill.export.onnx.sizes import _close, refused_for_size
from edgestill.pipeline.errors import BundleError

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
    infer = onnx.shape_inference.infer_shapes
    monkeypatch.setattr("onnx.shape_inference.infer_shapes", lambda model, strict_mode: infer(model, strict_mode=False))
    assert "elements; at most 268,435,456 are allowed" in str(refused_for_size(model(), None))


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of memory are Linux's")
def test_following_values_takes_no_more_memory_than_it_is_given():
    """ONNX's shape inference follows each value of a vector; of one with 10^9 that took 23 GB."""
    import resource

    data = followed_vector(10**8).SerializeToString()
    with pytest.raises(BundleError, match="needs more than 1,024 MiB of memory"):
        check_onnx_bytes(data, "model.onnx", ENDS)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3 << 20  # KiB; of the largest so far


def test_open_sides_of_each_input_are_closed_by_the_same_length():
    graph = helper.make_graph(
        [],
        "inputs",
        [
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("texts", TensorProto.INT64, ["batch", "length", 7]),
        ],
        [],
    )
    _close(graph, None, batch=3, length=5)
    sides = [[side.dim_value for side in value.type.tensor_type.shape.dim] for value in graph.input]
    assert sides == [[3], [3, 5, 7]]
