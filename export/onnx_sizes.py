"""How large the tensors that an ONNX graph computes become, told before any of it is computed."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import first_line

MAX_ELEMENTS = 2**28  # of any tensor that the graph computes; 1 GiB in fp32
MAX_RANK, MAX_SIDE = 16, 2**31
_MEMORY = 2**30  # for telling the sizes, beside what the model itself takes
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
    try:
        with _memory_bound(_MEMORY + 4 * model.ByteSize()):
            inferred = onnx.shape_inference.infer_shapes(told, strict_mode=ends is not None, data_prop=True).graph
    except MemoryError:
        return "needs more memory than it is given for the sizes of its tensors to be told"
    except Exception as error:  # the inference's kinds share no base
        return f"is refused by ONNX's own shape inference: {first_line(error, 'no reason')[:200]}"
    problem = next(_problems(inferred, ends is not None), None)
    return wrong_ends(inferred, ends, batch) if problem is None and ends is not None else problem


@contextmanager
def _memory_bound(more_bytes: int) -> Iterator[None]:
    """Let this process take so much more, where the system can hold it to that.

    The inference follows the values of vectors element by element, and a hostile file has one of 10^9 made.
    """
    try:
        import resource

        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # neither is everywhere
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = taken + more_bytes
    if any(limit not in (resource.RLIM_INFINITY, -1) and limit < bound for limit in (before, hard)):
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


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


def _problems(graph: Any, all_known: bool) -> Iterator[str]:
    known = set()
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        sides = [side.dim_value for side in kind.shape.dim]
        if len(sides) > MAX_RANK or max(sides, default=0) > MAX_SIDE:
            yield f"has the tensor {value.name[:80]!r} with more than {MAX_RANK} sides or one above {MAX_SIDE:,}"
            return
        size = math.prod(max(1, side) for side in sides)
        if size > MAX_ELEMENTS:
            yield f"computes the tensor {value.name[:80]!r} of {size:,} elements; at most {MAX_ELEMENTS:,} are allowed"
        if kind.HasField("shape") and all(
            side.HasField("dim_value") and side.dim_value >= 0 for side in kind.shape.dim
        ):
            known.add(value.name)
    for node in graph.node:
        unknown = next((name for name in node.output if name and name not in known), None)
        if unknown is not None and (all_known or node.op_type in _GROWING):
            yield f"computes {unknown[:80]!r} by {node.op_type[:80]}, and how large it becomes cannot be told"
        for inner in _subgraphs(node):
            yield from _problems(inner, all_known)


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
