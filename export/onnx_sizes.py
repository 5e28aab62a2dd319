"""How large the tensors that an ONNX graph computes become, told before any of it is computed."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pipeline.child import ChildError, ChildRefused, answer
from pipeline.errors import first_line

MAX_ELEMENTS = 2**28  # of any tensor that the graph computes; 1 GiB in fp32
MAX_RANK, MAX_SIDE = 16, 2**31
_MEMORY, _SECONDS = 2**30, 60  # for following values, the memory beside what the model itself takes
_REFUSED = "is refused by ONNX's own shape inference"
_NUMBERS = (1, 6, 7, 10)  # FLOAT, INT32, INT64, FLOAT16
# What makes much of little: the size of its result must be known in every file.
_GROWING = ("ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample")


class Ends(NamedTuple):
    """What goes into a file and comes out of it, by name: ONNX's name of the dtype, and the sides behind the batch."""

    inputs: Mapping[str, tuple[str, tuple[int, ...]]]
    outputs: Mapping[str, tuple[str, tuple[int, ...]]]


def wrong_ends(graph: Any, ends: Ends, batch: int | None = None) -> str | None:
    """What of a graph's inputs and outputs is not as it should be; open sides fit.

    Args:
        batch: None: this side must be open.
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
        if not _fits(value.type.tensor_type, dtype, (batch, *sides)):
            return f"has other {name} than {dtype} [batch, {', '.join(map(str, sides))}]"
    return None


def refused_for_size(model: Any, ends: Ends | None, batch: int = 1) -> str | None:
    """A tensor that would not fit in memory, or whose size cannot be told.

    Args:
        ends: what the model takes and gives, which it was found to. The size of every tensor must then follow from it
            and from the batch. None: sides that inputs leave open are counted as 1, and only what makes much of little
            must have a known size.
    """
    import onnx

    told = onnx.ModelProto()
    told.CopyFrom(model)
    _close(told.graph, ends, batch)
    all_known = ends is not None
    try:
        inferred = onnx.shape_inference.infer_shapes(told, strict_mode=all_known).graph
        if next(_too_large(inferred), None) is None and any(_unknown(inferred, all_known=True)):
            inferred = _followed(told, all_known)
    except _NotTold as error:
        return str(error)
    except Exception as error:  # the inference's kinds share no base
        return f"{_REFUSED}: {first_line(error, 'no reason')[:200]}"
    problem = _problem(inferred, all_known)
    return wrong_ends(inferred, ends, batch) if problem is None and ends is not None else problem


class _NotTold(Exception):
    """Why the inference that follows values came to no end."""


def _followed(model: Any, strict: bool) -> Any:
    """The graph with the sizes that follow from values, such as a token count's.

    The inference follows the values of vectors element by element, and a hostile file has one of 10^9 made, so it runs
    in a process whose memory and time are bounded. (A bound on this process could end it.)
    """
    import onnx

    memory = _MEMORY + 4 * model.ByteSize()
    asked = "export.onnx_sizes:inferred", model.SerializeToString(), str(int(strict))
    try:
        told = answer(*asked, memory_bytes=memory, seconds=_SECONDS)
    except ChildRefused as error:
        raise _NotTold(f"{_REFUSED}: {str(error)[:200]}") from None
    except ChildError as error:
        raise _NotTold(f"{error}: the sizes of its tensors cannot be told") from None
    return onnx.load_model_from_string(told).graph


def inferred(model: bytes, strict: str) -> bytes:
    """The model with the sizes that ONNX's inference, following values, finds; `_followed` calls it in a child."""
    import onnx

    loaded = onnx.load_model_from_string(model)
    found = onnx.shape_inference.infer_shapes(loaded, strict_mode=bool(int(strict)), data_prop=True)
    told: bytes = found.SerializeToString()
    return told


def _close(graph: Any, ends: Ends | None, batch: int) -> None:
    """Write the inputs' sides into the graph, and forget what it says itself of all other sizes."""
    for value in _given(graph):
        sides = value.type.tensor_type.shape.dim
        shape = (1,) * len(sides) if ends is None else (batch, *ends.inputs[value.name][1])
        for side, length in zip(sides, shape, strict=True):
            if not side.HasField("dim_value"):
                side.dim_value = length
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
    """Put values in the place of what follows from the inputs' sides alone; inference does not use all of it.

    A text student counts its tokens by a `Range` to the length of its input, a Hugging Face model cuts its positions.
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


def _problem(graph: Any, all_known: bool) -> str | None:
    return next(_too_large(graph), None) or next(_unknown(graph, all_known), None)


def _too_large(graph: Any) -> Iterator[str]:
    for value in _values(graph):
        sides = [side.dim_value for side in value.type.tensor_type.shape.dim]
        if len(sides) > MAX_RANK or max(sides, default=0) > MAX_SIDE:
            yield f"has the tensor {value.name[:80]!r} with more than {MAX_RANK} sides or one above {MAX_SIDE:,}"
            return
        size = math.prod(max(1, side) for side in sides)
        if size > MAX_ELEMENTS:
            yield f"computes the tensor {value.name[:80]!r} of {size:,} elements; at most {MAX_ELEMENTS:,} are allowed"
    for inner in (inner for node in graph.node for inner in _subgraphs(node)):
        yield from _too_large(inner)


def _unknown(graph: Any, all_known: bool) -> Iterator[str]:
    """What has no known size: of everything, or of what makes much of little."""
    known = {value.name for value in _values(graph) if _is_known(value.type.tensor_type)}
    for node in graph.node:
        name = next((name for name in node.output if name and name not in known), None)
        if name is not None and (all_known or node.op_type in _GROWING):
            yield f"computes {name[:80]!r} by {node.op_type[:80]}, and how large it becomes cannot be told"
        for inner in _subgraphs(node):
            yield from _unknown(inner, all_known)


def _values(graph: Any) -> Iterator[Any]:
    yield from (*graph.value_info, *graph.input, *graph.output)


def _is_known(kind: Any) -> bool:
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
