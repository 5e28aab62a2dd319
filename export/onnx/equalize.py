"""Cross-layer equalisation before quantisation, in an fp32 ONNX file; its function stays the same.

After Nagel et al. (2019, arXiv:1906.04721), sections 4.1 and 4.2: where a convolution is read by another one alone,
with at most a ReLU between them, s · relu(x) = relu(s · x) for s > 0. So channel i of the first is divided by
s_i = sqrt(r1_i / r2_i), and the second's weights for it are multiplied by s_i; both then have the range
sqrt(r1_i r2_i), with r the largest absolute weight of the channel. Depthwise convolutions are such pairs with both of
their neighbours, so that passes over the graph are repeated until nothing moves. Ours beside the paper: factors are
rounded to powers of two, which floating-point numbers take without an error.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_PASSES = 30
_MOST = 2.0**12  # of a factor in one pass: a channel that is nearly dead must not take another's range


class _Layer(NamedTuple):
    """A convolution whose weights are in the file and read by it alone."""

    weight: str
    bias: str | None
    groups: int


def equalized(data: bytes) -> tuple[bytes, int]:
    """Return the file with its ranges equalised, and the number of pairs of layers that changed."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(data)
    tensors = {one.name: one for one in model.graph.initializer}
    pairs = list(_pairs(model.graph, tensors))
    names = {name for pair in pairs for layer in pair for name in (layer.weight, layer.bias) if name}
    values = {name: numpy_helper.to_array(tensors[name]).copy() for name in names}
    changed: set[int] = set()
    for _ in range(_PASSES):
        moved = {place for place, pair in enumerate(pairs) if _balance(*pair, values)}
        changed |= moved
        if not moved:
            break
    if not changed:
        return data, 0
    for name, value in values.items():
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    found: bytes = model.SerializeToString()
    return found, len(changed)


def _pairs(graph: Any, tensors: dict[str, Any]) -> Iterator[tuple[_Layer, _Layer]]:
    """Yield each pair of layers whose common tensor nothing else reads, in the graph's order."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def only_reader(name: str) -> Any:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and name not in outputs else None

    for node in graph.node:
        first = _layer(node, tensors, readers)
        after = only_reader(node.output[0]) if first else None
        if after is not None and after.op_type == "Relu":
            after = only_reader(after.output[0])
        second = _layer(after, tensors, readers) if after is not None else None
        if first and second and _channels_in(second, tensors) == tensors[first.weight].dims[0]:
            yield first, second


def _layer(node: Any, tensors: dict[str, Any], readers: dict[str, list[Any]]) -> _Layer | None:
    own = [name for name in node.input[1:] if name]
    if node.op_type != "Conv" or any(name not in tensors or len(readers[name]) > 1 for name in own):
        return None
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    outputs, inputs = tensors[own[0]].dims[:2]
    if groups != 1 and not (groups == outputs and inputs == 1):  # neither plain nor depthwise
        return None
    return _Layer(own[0], own[1] if len(own) > 1 else None, groups)


def _channels_in(layer: _Layer, tensors: dict[str, Any]) -> int:
    return int(tensors[layer.weight].dims[1]) * layer.groups


def _balance(first: _Layer, second: _Layer, values: dict[str, np.ndarray]) -> bool:
    """Move the channels' ranges of a pair towards each other; return True if any moved."""
    one, other = values[first.weight], values[second.weight]
    by_input = other if second.groups > 1 else np.swapaxes(other, 0, 1)
    ranges = [np.abs(part).reshape(len(part), -1).max(axis=1).astype(np.float64) for part in (one, by_input)]
    alive = (ranges[0] > 0) & (ranges[1] > 0)
    wanted = np.sqrt(np.where(alive, ranges[0], 1) / np.where(alive, ranges[1], 1))
    factor = np.exp2(np.round(np.log2(np.clip(wanted, 1 / _MOST, _MOST)))).astype(one.dtype)
    if (factor == 1).all():
        return False
    one /= _along(factor, one)
    by_input *= _along(factor, by_input)  # a view of the second's weights
    if first.bias is not None:
        values[first.bias] /= factor
    return True


def _along(factor: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the factors in the shape of the weight's first axis."""
    return factor.reshape(-1, *[1] * (weight.ndim - 1))
