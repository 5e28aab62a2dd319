"""OpenVINO's IR in 8 bits by NNCF: weights and activations, or weights alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgestill.export.calibration import Int8Keys, require_sound
from edgestill.export.formats.base import Files, Source
from edgestill.export.formats.openvino import (
    HOW_TO_GET,
    CompiledRun,
    OpenVino,
    compiled,
    load_openvino,
    read,
    refusals,
    without_telemetry,
)
from edgestill.export.onnx.repair import DAMAGE_EXAMPLES, damage_of, repaired
from edgestill.export.onnx.saturation import LARGEST_PAIR
from edgestill.export.onnx.sessions import feed
from edgestill.export.quiet import quiet
from edgestill.pipeline.errors import ExportError, first_line


class _ByNncf(OpenVino):
    precision = "int8"

    def missing(self) -> str | None:
        reason = super().missing()
        if reason is not None:
            return reason
        try:
            _load_nncf()
        except ImportError as error:
            return f"{self.name} needs nncf ({first_line(error, type(error).__name__)}); {HOW_TO_GET}"
        return None


class OpenVinoW8(_ByNncf):
    """8-bit weights with a scale a channel; arithmetic is fp32."""

    name = "openvino_w8"

    def converted(self, model: Any, source: Source, config: Any) -> Any:
        nncf = _load_nncf()
        with quiet():
            return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)


class OpenVinoInt8(_ByNncf):
    """8-bit weights and activations, calibrated on the reference split."""

    name = "openvino_int8"
    Config = Int8Keys

    def saturable(self, path: Path) -> int:
        """Count products with weights outside ±64: oneDNN's kernels add pairs in 16 bits, as ONNX Runtime's do."""
        nodes = load_openvino().Core().read_model(path).get_ops()
        products = [node for node in nodes if node.get_type_name() in _PRODUCTS]
        weights = [_held_bytes(node.input_value(1).get_node()) for node in products]
        return sum(int(np.abs(values).max(initial=0)) > LARGEST_PAIR // 2 for values in weights)

    def converted(self, model: Any, source: Source, config: Int8Keys) -> Any:
        require_sound(source.calibration, source.task)
        return _quantized(model, source.calibration, config.weight_bits, ())

    def repaired(
        self, source: Source, config: Any, variant: str, holds: Callable[[Files], bool]
    ) -> tuple[Files, dict[str, float]] | None:
        half, examples = config.int8.seconds / 2, source.calibration[:DAMAGE_EXAMPLES]

        def answers(model: Any) -> np.ndarray:
            return CompiledRun(compiled(model, 1))(examples)

        with refusals():
            parts = _Parts(source, config.weight_bits)
            damage = damage_of(parts, answers(read(source)), answers, half)
            found = repaired(parts, damage, lambda model: holds(self.written(model.clone(), source, config)), half)
            return None if found is None else (self.written(found.made, source, config), found.in_float)


class _Parts:
    """The fp32 file, to be quantised in part."""

    def __init__(self, source: Source, weight_bits: int) -> None:
        self._source, self._bits = source, weight_bits
        nodes = read(source).get_ordered_ops()
        self.layers = tuple(node.get_friendly_name() for node in nodes if _is_layer(node))

    def part(self, *, only: Sequence[str] = (), without: Sequence[str] = ()) -> Any:
        """Return the model with some layers quantised: those of `only`, if it names any, less those of `without`.

        Raises:
            ExportError: nothing of it was quantised.
        """
        ignored = [layer for layer in self.layers if layer in without or (only and layer not in only)]
        examples = self._source.calibration[:DAMAGE_EXAMPLES] if only else self._source.calibration
        return _quantized(read(self._source), examples, self._bits, ignored)


def _is_layer(node: Any) -> bool:
    """True for products, and for sums of two computed tensors."""
    if node.get_type_name() != "Add":
        return node.get_type_name() in _PRODUCTS
    return all(node.input_value(place).get_node().get_type_name() != "Constant" for place in (0, 1))


def _quantized(model: Any, examples: np.ndarray, weight_bits: int, ignored: Sequence[str]) -> Any:
    nncf = _load_nncf()
    data = nncf.Dataset(list(examples), lambda example: feed(example[None]))
    with quiet():
        settings = _settings(nncf, model, weight_bits)
        if ignored:
            settings["ignored_scope"] = nncf.IgnoredScope(names=list(ignored))
        quantized = nncf.quantize(model, data, subset_size=len(examples), **settings)
    if not any(node.get_type_name() == "FakeQuantize" for node in quantized.get_ops()):
        raise ExportError("the quantisation changed nothing: NNCF found no layer of the network to quantise")
    return quantized


_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")
_UNPACKS = ("Convert", "Subtract", "Multiply", "Reshape", "Transpose")


def _held_bytes(node: Any) -> np.ndarray:
    """Return the stored bytes of a product's weights; empty if they are floats, or computed."""
    while node.get_type_name() in _UNPACKS:
        node = node.input_value(0).get_node()
    is_held = node.get_type_name() == "Constant" and node.get_element_type().to_string() in ("i8", "u8")
    return node.data.astype(int) if is_held else np.zeros(0, int)


def _load_nncf() -> ModuleType:
    with without_telemetry(), quiet():
        import nncf
    found: ModuleType = nncf
    return found


def _settings(nncf: ModuleType, model: Any, weight_bits: int) -> dict[str, Any]:
    """Return NNCF's settings: 7-bit or 8-bit weights in every layer; for transformers its model type, no SmoothQuant.

    The model type leaves masks and their sums alone. A text student's logits move half as far as without it (0.14 and
    0.30, of 0.4 deviation, untrained, 40 examples). SmoothQuant breaks small students (a ViT's logits move by 1.3, and
    by 0.08 without it).
    """
    advanced = nncf.quantization.advanced_parameters
    fix = advanced.OverflowFix.ENABLE if weight_bits == 7 else advanced.OverflowFix.DISABLE
    if not any(node.get_type_name() == "Softmax" for node in model.get_ops()):
        return {"advanced_parameters": advanced.AdvancedQuantizationParameters(overflow_fix=fix)}
    off = advanced.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    return {
        "model_type": nncf.ModelType.TRANSFORMER,
        "advanced_parameters": advanced.AdvancedQuantizationParameters(overflow_fix=fix, smooth_quant_alphas=off),
    }
