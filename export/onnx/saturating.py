"""Imitates a processor without VNNI on any processor, to show the gate both answers of an INT8 file.

Each product of bytes becomes float operators with the steps of ONNX Runtime's AVX2 kernels: neighbouring terms of a sum
(of a convolution: kernel place by kernel place, channels innermost) are added in pairs, and each pair's sum is clipped
to 16 bits. Sums of such integers are exact in float32. Depthwise convolutions stay as they are: those kernels compute
them without saturation. The result is many times slower than the file itself.
"""

# G groups, O output channels of a group, C input channels of a group, K terms of a sum, P pairs, H W height and width

from typing import Any, NamedTuple

import numpy as np

from edgestill.export.onnx.saturation import Graph, graph_of, int8_values
from edgestill.export.onnx.sessions import runner
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError

_BATCH = 8  # every pair's sum is in memory at once
_USUAL = {"auto_pad": b"NOTSET", "alpha": 1.0, "beta": 1.0, "transA": 0}


def saturating_runner(model: bytes, threads: int = 1) -> Run:
    """Return a `Run` of the file as on processors without VNNI.

    Raises:
        ExportError: it holds a product of bytes not imitated here.
    """
    run = runner(saturating_model(model), threads)
    return lambda inputs: np.concatenate([run(inputs[k : k + _BATCH]) for k in range(0, len(inputs), _BATCH)])


def saturating_model(model: bytes) -> bytes:
    """Rewrite the ONNX file with sums saturating on every processor.

    Raises:
        ExportError: as `saturating_runner`.
    """
    import onnx

    whole = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    values = (*whole.graph.value_info, *whole.graph.output)
    sides = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in values}
    graph, written = graph_of(whole.graph), _Written([], [])
    for node in graph.nodes:
        product = _product(node, graph, sides)
        if product is None:
            written.nodes.append(node)
        else:
            _write(product, node, written)
    del whole.graph.node[:]
    whole.graph.node.extend(written.nodes)
    whole.graph.initializer.extend(written.constants)
    data: bytes = whole.SerializeToString()
    return data


class _Product(NamedTuple):
    """Convolution of bytes, or a matrix product written as one with a kernel of 1 x 1."""

    given: str  # the tensor of bytes
    zero_point: np.ndarray  # of that tensor; scalar, int8 or uint8
    weights: np.ndarray  # [G * O, C, kernel height and width] int8
    scale: np.ndarray  # [G * O, 1, 1], of a sum
    groups: int
    window: dict[str, Any]  # strides, dilations
    pads: tuple[int, ...]  # before and after H and W
    size: tuple[int, ...] | None  # H W of the result; None for a matrix product


class _Written(NamedTuple):
    nodes: list[Any]
    constants: list[Any]

    def add(self, kind: str, *given: Any, name: str, **attributes: Any) -> str:
        """Add a node with an output of this name and return the name; numbers and arrays become constants."""
        from onnx import helper, numpy_helper

        names = []
        for place, value in enumerate(given):
            names.append(value if isinstance(value, str) else f"{name}/{place}")
            if not isinstance(value, str):
                self.constants.append(numpy_helper.from_array(np.asarray(value), f"{name}/{place}"))
        self.nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name


def _product(node: Any, graph: Graph, sides: dict[str, list[int]]) -> _Product | None:
    """Return a node as a product of bytes; None if it is none, or its sums do not saturate."""
    from onnx import helper, numpy_helper

    sources = [graph.makers.get(name) for name in node.input[:2]]
    if node.op_type not in ("Conv", "Gemm", "MatMul") or not all(s is not None and _is_dq(s) for s in sources):
        return None
    given, held = ([*source.input, ""] for source in sources if source is not None)
    weights = int8_values(held[0], graph)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    unusual = [key for key, usual in _USUAL.items() if attributes.get(key, usual) != usual]
    if weights is None or given[2] not in graph.constants or unusual:
        raise ExportError(f"how {node.op_type} {node.output[0]} saturates is not imitated here")
    zero, scale, by = (numpy_helper.to_array(graph.constants[name]) for name in (given[2], given[1], held[1]))
    size: tuple[int, ...] | None = None
    if node.op_type == "Conv":
        size = tuple(sides.get(node.output[0], ())[2:])
        if len(size) != 2 or 0 in size:
            raise ExportError(f"the size of {node.output[0]} does not follow from the file, which imitating it needs")
    else:
        weights = (weights if attributes.get("transB") else weights.T)[:, :, None, None]
    groups = attributes.get("group", 1)
    if groups > 1 and groups == len(weights) and weights.shape[1] == 1:
        return None
    window = {key: attributes[key] for key in ("strides", "dilations") if key in attributes}
    pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    scales = np.broadcast_to(scale * by.reshape(-1), len(weights)).astype(np.float32)[:, None, None]
    return _Product(given[0], zero, weights, scales, groups, window, pads, size)


def _write(product: _Product, node: Any, written: _Written) -> None:
    """Write the product in floats: raw bytes, each sum's terms, pairs, clipping; subtract the zero point's part."""
    name, weights, groups = node.output[0], product.weights.astype(np.float32), product.groups
    shift = np.float32(128 if product.zero_point.dtype == np.int8 else 0)  # signed activations are made unsigned
    zero = np.float32(product.zero_point) + shift
    raw = written.add("Add", written.add("Cast", product.given, name=f"{name}/float", to=1), shift, name=f"{name}/raw")
    if product.size is None:
        raw = written.add("Reshape", raw, np.array([-1, weights.shape[1], 1, 1]), name=f"{name}/column")
    elif any(product.pads):
        top, left, bottom, right = product.pads
        raw = written.add("Pad", raw, np.array([0, 0, top, left, 0, 0, bottom, right]), zero, name=f"{name}/padded")
    terms, by_pair = _pairs(weights, groups)
    gathered = written.add("Conv", raw, terms, name=f"{name}/terms", group=groups, **product.window)
    pairs = len(terms) // 2
    sums = written.add("Conv", gathered, by_pair, name=f"{name}/pairs", group=pairs)
    clipped = written.add("Clip", sums, np.float32(-32768), np.float32(32767), name=f"{name}/clipped")
    height, width = product.size or (1, 1)
    outputs = len(weights) // groups
    apart = np.array([-1, groups, pairs // groups, outputs, height * width])
    total = written.add(
        "ReduceSum", written.add("Reshape", clipped, apart, name=f"{name}/apart"), np.array([2]), name=f"{name}/total",
        keepdims=0,
    )  # fmt: skip
    total = written.add("Reshape", total, np.array([-1, len(weights), height, width]), name=f"{name}/sum")
    extra = (zero * weights.sum((1, 2, 3)))[:, None, None]
    value = written.add(
        "Mul", written.add("Sub", total, extra, name=f"{name}/true"), product.scale, name=f"{name}/value"
    )
    if len(node.input) > 2 and node.input[2]:
        bias = written.add("Unsqueeze", node.input[2], np.array([1, 2]), name=f"{name}/bias")
        value = written.add("Add", value, bias, name=f"{name}/biased")
    if product.size is not None:
        written.add("Identity", value, name=name)
        return
    leading = written.add("Shape", product.given, name=f"{name}/leading", end=-1)
    shape = written.add("Concat", leading, np.array([len(weights)]), name=f"{name}/shape", axis=0)
    written.add("Reshape", value, shape, name=name)


def _pairs(weights: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of kernels: to gather each group's terms in the order of its sums, [G * 2P, C, …], and to add
    each pair of terms for each output, [G * P * O, 2, 1, 1].
    """
    outputs, channels, height, width = len(weights) // groups, *weights.shape[1:]
    count = channels * height * width
    even = count + count % 2  # an odd last term has no neighbour
    order = np.eye(even, count, dtype=np.float32).reshape(even, height, width, channels).transpose(0, 3, 1, 2)
    flat = np.zeros((len(weights), even), np.float32)
    flat[:, :count] = weights.transpose(0, 2, 3, 1).reshape(len(weights), count)
    by_pair = flat.reshape(groups, outputs, even // 2, 2).transpose(0, 2, 1, 3).reshape(-1, 2, 1, 1)
    return np.tile(order, (groups, 1, 1, 1)), np.ascontiguousarray(by_pair)


def _is_dq(node: Any) -> bool:
    return bool(node.op_type == "DequantizeLinear")
