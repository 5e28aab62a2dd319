"""Tests an INT8 file for equal answers on every processor, by a bound on its weights.

Processors before VNNI (SSE4.1, AVX2, AVX-512 alone) multiply bytes in pairs: two products of an unsigned activation and
a signed weight are added in 16 bits, and a sum beyond these is clipped. A pair fits for all activations if its
weights of one sign add up to 128 at most: 255 · 128 = 32,640, and 16 bits end at 32,767. With VNNI, with Arm's dot
products and on GPUs sums have 32 bits. Signed activations do not help: ONNX Runtime shifts them to unsigned ones.

The kernel decides which weights are neighbours, so any two of one output channel are taken for a pair. Depthwise
convolutions do not saturate in ONNX Runtime's AVX2 kernels. Other kernels may, so the bound holds for them too.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from edgestill.export.onnx.sessions import open_session

LARGEST_PAIR = 32767 // 255  # 128
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # of floats; a runtime fuses them with conversions around
_INTEGER = {  # operator on integers -> places of its inputs that are weights
    "QLinearConv": (3,), "QLinearMatMul": (3,), "ConvInteger": (1,), "MatMulInteger": (1,), "QGemm": (3,),
    "MatMulIntegerToFloat": (1,), "DynamicQuantizeMatMul": (1,), "QAttention": (1,), "DynamicQuantizeLSTM": (1, 2),
}  # fmt: skip
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")  # values stay, places change


class Graph(NamedTuple):
    """A graph by its tensors' names."""

    nodes: list[Any]
    makers: dict[str, Any]  # tensor -> the node that makes it
    constants: dict[str, Any]  # tensor -> its TensorProto


def saturable(model: bytes) -> tuple[str, ...]:
    """Return the products of an ONNX file that may saturate without VNNI, by their outputs' names; (): none can.

    A product of bytes is among them if the file does not hold its weights, for nothing bounds it.
    """
    import onnx

    graphs = [*_graphs(onnx.load_model_from_string(model).graph)]
    return tuple(
        node.output[0] for graph in graphs for node in graph.nodes if any(map(_leaves_16_bits, _weights(node, graph)))
    )


@functools.cache
def saturates_here() -> bool:
    """True if ONNX Runtime's kernels saturate on this processor, by two products that need 17 bits together."""
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    weights = numpy_helper.from_array(np.full((2, 1), 127, np.int8), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "w"], ["y"])], "two products",
        [value("a", TensorProto.UINT8, [1, 2])], [value("y", TensorProto.INT32, [1, 1])], [weights],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (found,) = open_session(model.SerializeToString()).run(None, {"a": np.full((1, 2), 255, np.uint8)})
    return int(found[0, 0]) != 2 * 255 * 127


def graph_of(graph: Any) -> Graph:
    """Index a graph by its tensors' names, without the graphs inside its nodes."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return Graph(list(graph.node), makers, constants)


def int8_values(name: str, graph: Graph) -> np.ndarray | None:
    """Return the values of a constant int8 tensor, stored or quantised from floats; None if it is no int8 constant."""
    from onnx import TensorProto, numpy_helper

    if name in graph.constants:
        held = graph.constants[name]
        return numpy_helper.to_array(held) if held.data_type == TensorProto.INT8 else None
    node = graph.makers.get(name)
    if node is None or node.op_type != "QuantizeLinear" or not set(node.input) <= graph.constants.keys():
        return None
    values, scale, *zero = (numpy_helper.to_array(graph.constants[given]) for given in node.input)
    if not zero or zero[0].dtype != np.int8:
        return None
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    sides = [-1 if side == axis % values.ndim else 1 for side in range(values.ndim)] if scale.size > 1 else []
    shifted = np.round(values / scale.reshape(sides)) + zero[0].reshape(sides)
    clipped: np.ndarray = np.clip(shifted, -128, 127).astype(np.int8)
    return clipped


def _graphs(graph: Any, outer: Graph | None = None) -> Iterator[Graph]:
    """Yield a graph and those inside its nodes; inner graphs see the tensors around them."""
    own = graph_of(graph)
    if outer is not None:
        own = Graph(own.nodes, outer.makers | own.makers, outer.constants | own.constants)
    yield own
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner, own)


def _weights(node: Any, graph: Graph) -> Iterator[np.ndarray | None]:
    """Yield a product's int8 weights, [output channels, …]; None for weights outside the file."""
    for name, zero_point, axis, is_weight in _operands(node, graph):
        values = int8_values(name, graph)
        if values is not None:
            yield values.reshape(1, -1) if axis is None or values.ndim < 2 else np.moveaxis(values, axis, 0)
        elif is_weight and name not in graph.constants and _is_signed(zero_point, graph):
            yield None


def _operands(node: Any, graph: Graph) -> Iterator[tuple[str, str, int | None, bool]]:
    """Yield (tensor, its zero point, axis of the output channels or None, True if the kernel takes it as weights)."""
    for place in _INTEGER.get(node.op_type, ()):
        if place < len(node.input) and node.input[place]:
            yield node.input[place], "", None, True
    for place, name in enumerate(node.input[:2] if node.op_type in _PRODUCTS else ()):
        source, axis = graph.makers.get(name), channel_axis(node) if place else None
        while source is not None and source.op_type in _MOVES:
            source, axis = graph.makers.get(source.input[0]), None
        if source is not None and source.op_type == "DequantizeLinear":
            yield source.input[0], source.input[2] if len(source.input) > 2 else "", axis, place == 1


def channel_axis(node: Any) -> int | None:
    """Return the axis of the output channels in a product's second operand; None if it is not known."""
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return {"Conv": 0, "MatMul": -1}.get(node.op_type)


def _is_signed(zero_point: str, graph: Graph) -> bool:
    """True if a computed tensor may hold signed bytes, by its zero point's type; True if the type is unknown."""
    from onnx import TensorProto

    return zero_point not in graph.constants or graph.constants[zero_point].data_type == TensorProto.INT8


def _leaves_16_bits(weights: np.ndarray | None) -> bool:
    if weights is None:
        return True
    channels = weights.reshape(len(weights), -1).astype(int)
    if channels.shape[1] < 2:
        return False
    ordered = np.sort(channels, axis=1)
    return bool(max(ordered[:, -2:].clip(min=0).sum(1).max(), -ordered[:, :2].clip(max=0).sum(1).min()) > LARGEST_PAIR)
