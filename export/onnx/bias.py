"""Bias correction of an 8-bit ONNX file: each output channel of a layer has fp32's mean again.

After Nagel et al. (2019, arXiv:1906.04721), section 4.2 and the empirical form of their appendix D: rounding moves the
mean of a channel, E[y~] - E[y], and the layer's bias takes that back. The means are of calibration examples, one layer
after the other in the graph's order, since each correction changes what the following layers read. Ours beside the
paper: y~ is the 8-bit file's own, so that the rounding of the activations counts beside that of the weights; and a bias
kept as an integer moves by whole steps.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgestill.export.onnx.repair import Clock
from edgestill.export.onnx.sessions import feed, open_session

_BATCH = 32
_LAYERS = ("Conv", "Gemm")  # a product's bias is a sum's, of its own


class _Biased(NamedTuple):
    """A layer of the 8-bit file whose bias it holds, for this layer alone."""

    output: str
    fp32_output: str
    bias: str  # the tensor: float32, or int32 in steps
    steps: np.ndarray | None  # of an integer bias, one for all channels or one each


def corrected(
    quantized: bytes, fp32: bytes, examples: np.ndarray, seconds: float, clock: Clock = time.monotonic
) -> tuple[bytes, int]:
    """Return the file with its biases corrected, and the number of layers whose bias changed.

    Args:
        fp32: the file it was made from, with the same names of layers.
        examples: inputs of calibration [N, *input_shape].
        seconds: longest time, but for a layer that is being corrected; the layers after that stay as they are.
    """
    import onnx
    from onnx import numpy_helper

    begun, changed = clock(), 0
    model, original = onnx.load_from_string(quantized), onnx.load_from_string(fp32)
    tensors = {one.name: one for one in model.graph.initializer}
    layers = list(_layers(model.graph, original.graph, tensors))
    expected = _means(original, [layer.fp32_output for layer in layers], examples)
    for layer, wanted in zip(layers, expected, strict=True):
        if clock() - begun > seconds:
            break
        (found,) = _means(model, [layer.output], examples)
        bias = numpy_helper.to_array(tensors[layer.bias])
        moved = _moved(bias, wanted - found, layer.steps)
        if not np.array_equal(moved, bias):
            tensors[layer.bias].CopyFrom(numpy_helper.from_array(moved, layer.bias))
            changed += 1
    return (bytes(model.SerializeToString()), changed) if changed else (quantized, 0)


def _moved(bias: np.ndarray, by: np.ndarray, steps: np.ndarray | None) -> np.ndarray:
    """Return a bias moved by so much in each channel, rounded to its own steps."""
    if steps is None:
        moved: np.ndarray = bias + by
    else:
        limits, live = np.iinfo(bias.dtype), np.where(steps > 0, steps, np.inf)
        moved = np.clip(bias + np.rint(by / live), limits.min, limits.max)
    return moved.astype(bias.dtype)


def _layers(graph: Any, original: Any, tensors: dict[str, Any]) -> Iterator[_Biased]:
    """Yield the layers that can be corrected, in the graph's order."""
    names = {node.name: node.output[0] for node in original.node if node.name}
    made = {output: node for node in graph.node for output in node.output}
    readers = [name for node in graph.node for name in node.input]
    for node in graph.node:
        scaled = any(attribute.name == "beta" and attribute.f != 1 for attribute in node.attribute)
        if node.op_type not in _LAYERS or len(node.input) < 3 or node.name not in names or scaled:
            continue
        held = _held(node.input[2], made, tensors)
        if held is not None and readers.count(held[0]) == readers.count(node.input[2]) == 1:
            yield _Biased(node.output[0], names[node.name], *held)


def _held(name: str, made: dict[str, Any], tensors: dict[str, Any]) -> tuple[str, np.ndarray | None] | None:
    """Return the tensor that holds a bias, and its steps; None if it is computed otherwise."""
    from onnx import numpy_helper

    if name in tensors:
        return name, None
    node = made.get(name)
    if node is None or node.op_type != "DequantizeLinear" or not {*node.input[:2]} <= tensors.keys():
        return None
    return node.input[0], numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)


def _means(model: Any, names: Sequence[str], examples: np.ndarray) -> list[np.ndarray]:
    """Return the mean of each channel of some tensors [N, channels, ...] over the examples."""
    import onnx

    if not names:
        return []
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(tapped.SerializeToString(), exact=True)
    sums: list[Any] = [0.0] * len(names)
    for start in range(0, len(examples), _BATCH):
        batch = np.ascontiguousarray(examples[start : start + _BATCH])
        for place, found in enumerate(session.run(None, feed(batch, session))):
            others = tuple(axis for axis in range(found.ndim) if axis != 1)
            sums[place] = sums[place] + len(batch) * found.mean(axis=others, dtype=np.float64)
    return [total / len(examples) for total in sums]
