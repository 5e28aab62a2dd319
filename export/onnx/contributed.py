"""Output sizes of ONNX Runtime's own operators, for which ONNX's shape inference has no rule.

Each becomes a standard operator with outputs of the same sizes. The result is for shape inference alone: it computes
other values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

_MICROSOFT = "com.microsoft"


class _Like(NamedTuple):
    operator: str
    inputs: Callable[[list[str]], list[str]]  # those of the operator's inputs that decide the size
    attributes: tuple[str, ...] = ()  # decide it too; any other but _NO_MATTER, if not 0, leaves it unknown


def _first(given: list[str]) -> list[str]:
    return given[:1]


def _each(*places: int) -> Callable[[list[str]], list[str]]:
    return lambda given: [given[place] for place in places if place < len(given)]


_WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides", "dilations")
_NO_MATTER = (
    "alpha",
    "beta",
    "axis",
    "epsilon",
    "stash_type",
    "transA",
    "transB",
    "approximate",
    "opset",
    "block_size",
)
_AS: dict[str, _Like] = {
    "QuantizeLinear": _Like("Identity", _first),
    "DequantizeLinear": _Like("Identity", _first),
    "QLinearLeakyRelu": _Like("Identity", _first),
    "QLinearSigmoid": _Like("Identity", _first),
    "QLinearSoftmax": _Like("Identity", _first),
    "Gelu": _Like("Identity", _first),
    "FastGelu": _Like("Identity", _first),
    "BiasGelu": _Like("Add", _each(0, 1)),
    "LayerNormalization": _Like("Identity", _first),
    "SkipLayerNormalization": _Like("Add", _each(0, 1)),
    "QLinearAdd": _Like("Add", _each(0, 3)),
    "QLinearMul": _Like("Add", _each(0, 3)),
    "QLinearWhere": _Like("Where", _each(0, 1, 4)),
    "QLinearConcat": _Like("Concat", lambda given: given[2::3], ("axis",)),
    "QLinearGlobalAveragePool": _Like("GlobalAveragePool", _first),
    "QLinearAveragePool": _Like("AveragePool", _first, _WINDOW),
    "QGemm": _Like("Gemm", _each(0, 3, 6), ("transA", "transB")),
    "DynamicQuantizeMatMul": _Like("MatMul", _each(0, 1)),
    "MatMulIntegerToFloat": _Like("MatMul", _each(0, 1)),
    "FusedMatMul": _Like("MatMul", _each(0, 1)),
}


def as_standard(graph: Any) -> None:
    """Replace ONNX Runtime's operators by standard ones with outputs of the same sizes; those without one stay."""
    for node in graph.node:
        like = _AS.get(node.op_type) if node.domain == _MICROSOFT else None
        if like is None or _is_other(node, like):
            continue
        kept = [attribute for attribute in node.attribute if attribute.name in like.attributes]
        node.input[:] = like.inputs(list(node.input))
        node.output[:] = node.output[:1]
        node.op_type, node.domain = like.operator, ""
        del node.attribute[:]
        node.attribute.extend(kept)


def _is_other(node: Any, like: _Like) -> bool:
    """True if an attribute changes the sizes: channels last, or transposed factors."""
    silent = {"transA", "transB"} if like.operator == "MatMul" else set()
    ignored = {*like.attributes, *_NO_MATTER} - silent
    return any(attribute.i for attribute in node.attribute if attribute.name not in ignored)
