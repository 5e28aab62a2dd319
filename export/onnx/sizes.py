"""Sizes of the tensors in an ONNX graph, inferred before any of it is computed.

Inference also follows the values of a hostile file's vectors, element by element, so all of this belongs in a child of
bounded memory and time (`export/onnx/admission.py`).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgestill.export.onnx.contributed import as_standard
from edgestill.export.onnx.ends import Ends
from edgestill.pipeline.errors import first_line

MAX_ELEMENTS = 2**28  # of any tensor that the graph computes; 1 GiB in fp32
MAX_RANK, MAX_SIDE = 16, 2**31
_REFUSED = "is refused by ONNX's own shape inference"
_NUMBERS = (1, 6, 7, 10)  # FLOAT, INT32, INT64, FLOAT16


def wrong_ends(graph: Any, ends: Ends, batch: int | None = None) -> str | None:
    """Describe an input or output unlike the required one, or return None; open sides fit.

    Args:
        batch: required first side, or left open by the graph; None: it must be open.
    """
    given, found = _given(graph), {value.name: value for value in graph.output}
    if sorted(value.name for value in given) != sorted(ends.inputs):
        return (
            f"takes {', '.join(value.name for value in given)[:120]}; it should take {', '.join(sorted(ends.inputs))}"
        )
    missing = next((name for name in ends.outputs if name not in found), None)
    if missing is not None:
        return f"does not give {missing}"
    for name, (dtype, sides) in {**ends.inputs, **ends.outputs}.items():
        value = found[name] if name in ends.outputs else next(value for value in given if value.name == name)
        is_open = ends.any_size if batch is None and name in ends.inputs else ()
        wanted = [None if place in is_open else side for place, side in enumerate(sides)]
        if not _fits(value.type.tensor_type, dtype, (batch, *wanted)):
            told = ("any size" if side is None else str(side) for side in wanted)
            return f"has other {name} than {dtype} [batch, {', '.join(told)}]"
    return None


def refused_for_size(model: Any, ends: Ends | None, batch: int = 1, length: int = 1) -> str | None:
    """Return the reason to refuse a model for a tensor too large or of unknown size; else None.

    Args:
        ends: the model's inputs and outputs, already checked by `wrong_ends`; None: take the inputs it declares.
        batch: size of the inputs' first side, where it is open.
        length: size of their other sides, where they are open.
    """
    import onnx

    told = onnx.ModelProto()
    told.CopyFrom(model)
    _close(told.graph, ends, batch, length)
    as_standard(told.graph)
    strict = ends is not None
    try:
        inferred = onnx.shape_inference.infer_shapes(told, strict_mode=strict).graph
        if next(_too_large(inferred, batch), None) is None and any(_unknown(inferred)):
            inferred = onnx.shape_inference.infer_shapes(told, strict_mode=strict, data_prop=True).graph
    except Exception as error:  # the inference's error types share no base class
        return f"{_REFUSED}: {reason_of(error)}"
    problem = next(_too_large(inferred, batch), None) or next(_unknown(inferred), None)
    return wrong_ends(inferred, ends, batch) if problem is None and ends is not None else problem


def reason_of(error: Exception) -> str:
    """Return ONNX's message, shortened.

    Raises:
        MemoryError: the message says that memory ran out.
    """
    if "bad_alloc" in str(error):
        raise MemoryError from error
    return first_line(error, "no reason")[:200]


def _close(graph: Any, ends: Ends | None, batch: int, length: int) -> None:
    """Write the inputs' sides into the graph, drop all other sizes it declares, and fold values known from these."""
    for value in _given(graph):
        sides = value.type.tensor_type.shape.dim
        shape = (batch, *([length] * (len(sides) - 1) if ends is None else ends.inputs[value.name][1]))[: len(sides)]
        for side, given in zip(sides, shape, strict=True):
            if not side.HasField("dim_value"):
                side.dim_value = given
    _forget(graph)
    _fold(graph)


def _forget(graph: Any) -> None:
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for inner in _subgraphs(node):
            _forget(inner)


def _fold(graph: Any) -> None:
    """Replace nodes by their values where the inputs' sides or small constants give them; inference does not fold all.

    A text student counts its tokens by a `Range` to its input's length; a Hugging Face model cuts its positions.
    """
    from onnx import numpy_helper

    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer if math.prod(t.dims) <= MAX_RANK}
    sides = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in _given(graph)}
    kept = []
    for node in graph.node:
        value = _value(node, sides, known)
        if value is None:
            kept.append(node)
            continue
        known[node.output[0]] = value
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)


def _value(node: Any, sides: Mapping[str, list[int]], known: Mapping[str, np.ndarray]) -> np.ndarray | None:
    from onnx import helper

    numbers = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Shape" and node.input[0] in sides:
        return np.array(sides[node.input[0]][numbers.get("start", 0) : numbers.get("end")], np.int64)
    value = known.get(node.input[0]) if len(node.input) == 1 else None
    if value is None or not np.issubdtype(value.dtype, np.number):
        return None
    if node.op_type == "Squeeze" and not numbers:
        return value.squeeze()
    if node.op_type == "Cast" and numbers["to"] in _NUMBERS:
        with np.errstate(all="ignore"):
            return value.astype(helper.tensor_dtype_to_np_dtype(numbers["to"]))
    return None


def _too_large(graph: Any, batch: int) -> Iterator[str]:
    most = MAX_ELEMENTS * batch
    for value in _values(graph):
        sides = [side.dim_value for side in value.type.tensor_type.shape.dim]
        if len(sides) > MAX_RANK or max(sides, default=0) > MAX_SIDE:
            yield f"has the tensor {value.name[:80]!r} with more than {MAX_RANK} sides or one above {MAX_SIDE:,}"
            return
        size = math.prod(max(1, side) for side in sides)
        if size > most:
            yield f"computes the tensor {value.name[:80]!r} of {size:,} elements; at most {most:,} are allowed"
    for inner in (inner for node in graph.node for inner in _subgraphs(node)):
        yield from _too_large(inner, batch)


def _unknown(graph: Any) -> Iterator[str]:
    """Yield a sentence for each node with an output of unknown size."""
    known = {value.name for value in _values(graph) if _is_known(value.type.tensor_type)}
    for node in graph.node:
        name = next((name for name in node.output if name and name not in known), None)
        if name is not None:
            yield f"computes {name[:80]!r} by {node.op_type[:80]}, and how large it becomes cannot be told"
        for inner in _subgraphs(node):
            yield from _unknown(inner)


def _values(graph: Any) -> Iterator[Any]:
    yield from (*graph.value_info, *graph.input, *graph.output)


def _is_known(kind: Any) -> bool:
    """True for a tensor of numbers with known sides; strings have no bound on their length."""
    from onnx import TensorProto

    if kind.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return False
    return kind.HasField("shape") and all(side.HasField("dim_value") and side.dim_value >= 0 for side in kind.shape.dim)


def _given(graph: Any) -> list[Any]:
    held = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in held]


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        yield from (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs)


def _fits(found: Any, dtype: str, shape: tuple[int | None, ...]) -> bool:
    from onnx import TensorProto

    sides = [side.dim_value if side.HasField("dim_value") else None for side in found.shape.dim]
    if TensorProto.DataType.Name(found.elem_type) != dtype or len(sides) != len(shape):
        return False
    return all(
        side in ((None,) if wanted is None else (None, wanted)) for side, wanted in zip(sides, shape, strict=True)
    )
