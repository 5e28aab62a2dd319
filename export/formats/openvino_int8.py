"""OpenVINO's IR with 8-bit weights and activations, by NNCF's post-training quantisation."""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgestill.export.calibration import Int8Keys, require_sound
from edgestill.export.formats.base import Source
from edgestill.export.formats.openvino import HOW_TO_GET, OpenVino, load_openvino, without_telemetry
from edgestill.export.onnx.saturation import LARGEST_PAIR
from edgestill.export.onnx.sessions import feed
from edgestill.pipeline.errors import ExportError, first_line


class OpenVinoInt8(OpenVino):
    """Calibrated on the reference split."""

    name = "openvino_int8"
    precision = "int8"
    Config = Int8Keys

    def missing(self) -> str | None:
        reason = super().missing()
        if reason is not None:
            return reason
        try:
            _load_nncf()
        except ImportError as error:
            return f"openvino_int8 needs nncf ({first_line(error, type(error).__name__)}); {HOW_TO_GET}"
        return None

    def saturable(self, path: Path) -> int:
        """Count products with weights outside ±64: oneDNN's kernels add pairs in 16 bits, as ONNX Runtime's do."""
        nodes = load_openvino().Core().read_model(path).get_ops()
        products = [node for node in nodes if node.get_type_name() in _PRODUCTS]
        weights = [_held_bytes(node.input_value(1).get_node()) for node in products]
        return sum(int(np.abs(values).max(initial=0)) > LARGEST_PAIR // 2 for values in weights)

    def converted(self, model: Any, source: Source, config: Int8Keys) -> Any:
        require_sound(source.calibration, source.task)
        nncf = _load_nncf()
        examples = nncf.Dataset(list(source.calibration), lambda example: feed(example[None]))
        with _quiet():
            settings = _settings(nncf, model, config.weight_bits)
            quantized = nncf.quantize(model, examples, subset_size=len(source.calibration), **settings)
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
    with without_telemetry(), _quiet():
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence NNCF's logs and progress bars."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
