"""Checks an ONNX file before a runtime sees it: whole, in one file, of known operators, of bounded size.

Protobuf parses it, which runs nothing. A refusal comes before any session, loader or external file. Parsing takes place
in a child of bounded memory and time; this process sees the bytes alone.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgestill.export.files import read_regular
from edgestill.export.onnx.ends import Ends
from edgestill.export.onnx.sizes import MAX_RANK, MAX_SIDE, reason_of, refused_for_size, wrong_ends
from edgestill.pipeline.child import ChildError, answer
from edgestill.pipeline.errors import BundleError

MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit
MAX_NODES = 50_000
MAX_SUBGRAPHS = 4  # nested in each other
_MEMORY, _TIMES, _SECONDS = 2**30, 12, 60  # of the parsing child: bytes beside some copies of the file, seconds
BATCHES = (1, 16)  # sizes given to a bundle's files: a prediction's, and the probes'

# Operators of ONNX Runtime itself, or written by its quantizer; all others outside ONNX's domain are refused.
_CONTRIBUTED = frozenset({
    "QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool", "QLinearAveragePool",
    "QLinearConcat", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QLinearReduceMean",
    "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "Gelu", "FastGelu", "BiasGelu", "FusedMatMul",
    "LayerNormalization", "SkipLayerNormalization",
})  # fmt: skip
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_ENDLESS = ("Loop", "Scan")  # a file can ask for 2^63 rounds; classifiers have none
_OTHERS = {
    b"PK\x03\x04": "a zip archive (a torch checkpoint is one)",
    b"\x93NUMPY": "a numpy file",
    b"\x7fELF": "a program",
    b"GGUF": "a GGUF file",
    b"\x80": "a pickle",
    b"{": "JSON or text",
}


def check_onnx(path: Path, batches: Sequence[int] = (1,), length: int = 1) -> bytes:
    """Check an ONNX file for a runtime and return its bytes; open a session from them, not from the path.

    Args:
        batches: sizes of the inputs' first side, if the file leaves it open.
        length: size of the inputs' other sides, where the file leaves them open.

    Raises:
        BundleError: it is no ONNX file, is too large, or holds something no classifier needs.
    """
    data = read_regular(path, MAX_MODEL_BYTES)
    check_onnx_bytes(data, path.name, batches=batches, length=length)
    return data


def check_onnx_bytes(
    data: bytes, name: str, ends: Ends | None = None, batches: Sequence[int] = BATCHES, length: int = 1
) -> None:
    """Check the bytes of an ONNX file, as `check_onnx` does.

    Args:
        ends: required inputs and outputs; None: any.
    """
    guess = next((what for magic, what in _OTHERS.items() if data.startswith(magic)), None)
    if data[4:8] == b"ORTM":
        guess = "an ORT-format model"
    if guess is not None:
        raise BundleError([f"{name} is no ONNX model but looks like {guess}; it was not opened"])
    asked = json.dumps({"ends": ends, "batches": sorted({1, *batches}), "length": length})
    memory = _MEMORY + _TIMES * len(data)
    try:
        problem = answer(
            "edgestill.export.onnx.child:refusal", data, asked, memory_bytes=memory, seconds=_SECONDS
        ).decode()
    except ChildError as error:
        problem = f"{error}, so that it cannot be checked"
    if problem:
        raise BundleError([f"{name} {problem}"])


def refusal(data: bytes, ends: Ends | None, batches: Sequence[int], length: int) -> str | None:
    """Return the reason to refuse a model, to follow its name in a sentence, or None; for `export/onnx/child.py`."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        return "is no ONNX model, or is truncated"
    if not model.graph.node:
        return "is no ONNX model: there is no operator in it"
    problem = next(_problems(model), None) or _refused_by_onnx(model)
    if ends is not None:
        problem = problem or wrong_ends(model.graph, ends)
    sizes = (refused_for_size(model, ends, batch, length) for batch in batches)
    return problem or next(filter(None, sizes), None)


def _problems(model: Any) -> Iterator[str]:
    from onnx.defs import onnx_opset_version

    yield from _graph_problems(model.graph, depth=0)
    newest = onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain not in _DOMAINS:
            yield f"asks for the operators of {opset.domain[:80]!r}, which are not ONNX's"
        elif opset.domain != "com.microsoft" and not 1 <= opset.version <= newest:
            yield f"asks for ONNX's operator set {opset.version}; 1 to {newest} are known here"
    if model.functions:
        yield f"defines functions of its own ({model.functions[0].name[:80]!r}); operators must be ONNX's"
    if model.training_info:
        yield "holds a training graph"


def _graph_problems(graph: Any, depth: int) -> Iterator[str]:
    if depth > MAX_SUBGRAPHS:
        yield f"nests graphs more than {MAX_SUBGRAPHS} deep"
        return
    if len(graph.node) > MAX_NODES:
        yield f"has {len(graph.node):,} operators; at most {MAX_NODES:,} are read"
        return
    for value in (*graph.input, *graph.output, *graph.value_info):
        if len(value.type.tensor_type.shape.dim) > MAX_RANK:
            yield f"has the tensor {value.name[:80]!r} with more than {MAX_RANK} sides"
    for tensor in graph.initializer:
        yield from _tensor_problems(tensor)
    for sparse in graph.sparse_initializer:
        yield f"holds the sparse tensor {sparse.values.name[:80]!r}, which is not read here"
    for node in graph.node:
        yield from _node_problems(node)
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                yield from _tensor_problems(tensor)
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                yield f"holds a sparse tensor in a {node.op_type[:80]}, which is not read here"
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graph_problems(inner, depth + 1)


def _node_problems(node: Any) -> Iterator[str]:
    if node.domain not in _DOMAINS:
        yield f"holds the custom operator {node.domain[:80]}.{node.op_type[:80]}"
    elif node.domain == "com.microsoft" and node.op_type not in _CONTRIBUTED:
        yield f"holds the operator com.microsoft.{node.op_type[:80]}, which is not one of a quantized classifier"
    elif node.op_type in _ENDLESS:
        yield f"holds a {node.op_type}, which need not end; a classifier has none"


def _tensor_problems(tensor: Any) -> Iterator[str]:
    """Yield the problems of a tensor: external data, or a size at odds with its content."""
    from onnx import TensorProto

    name = tensor.name[:80]
    if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
        where = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        yield f"keeps the tensor {name!r} in another file ({where[:120]!r}), which was not opened"
        return
    if not tensor.ByteSize():  # an attribute without a tensor
        return
    if min(tensor.dims, default=0) < 0:
        yield f"declares the tensor {name!r} with a negative side"
        return
    if len(tensor.dims) > MAX_RANK or max(tensor.dims, default=0) > MAX_SIDE:
        yield f"declares the tensor {name!r} with more than {MAX_RANK} sides or one above {MAX_SIDE:,}"
        return
    declared, held = math.prod(tensor.dims), _elements(tensor)
    if held is None:
        yield f"holds the tensor {name!r} of a type that is not known ({tensor.data_type})"
    elif declared != held:
        yield f"declares the tensor {name!r} with {declared:,} elements and holds {held:,}"


def _elements(tensor: Any) -> int | None:
    from onnx import TensorProto, helper

    kind = tensor.data_type
    if kind == TensorProto.STRING:
        return len(tensor.string_data)
    try:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        field = helper.tensor_dtype_to_field(kind)
    except KeyError:
        return None
    bits = _SMALL.get(TensorProto.DataType.Name(kind), 8 * dtype.itemsize)
    declared = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        expected = -(-declared * bits // 8)
        return declared if len(tensor.raw_data) == expected else len(tensor.raw_data) * 8 // bits
    stored = len(getattr(tensor, field))
    packed = {8: 1, 4: 2, 2: 4}.get(bits, 1)
    if dtype.kind == "c":
        return stored // 2
    return declared if stored == -(-declared // packed) else stored * packed


_SMALL = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}


def _refused_by_onnx(model: Any) -> str | None:
    """Return the complaint of ONNX's own checker; None if it has none."""
    import onnx

    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker's error types share no base class
        return f"is refused by ONNX's own checker: {reason_of(error)}"
    return None
