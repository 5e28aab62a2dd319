"""OpenVINO's IR, for Intel's processors: the graph in XML and the weights beside it."""

import contextlib
import io
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgestill.export.calibration import require_sound
from edgestill.export.formats.base import Format, Source
from edgestill.export.onnx.saturation import LARGEST_PAIR
from edgestill.export.onnx.sessions import OUTPUT, feed
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError, first_line

HOW_TO_GET = "`pip install 'edgestill[openvino]'`"


class OpenVino(Format):
    """The fp32 file as IR. Arithmetic stays fp32; OpenVINO itself would choose bfloat16 where the CPU has it."""

    name = "openvino"
    precision = "fp32"
    runtime = "openvino"
    suffix = ".xml"
    beside = (".bin",)

    def missing(self) -> str | None:
        try:
            load_openvino()
        except ExportError as error:
            return str(error)
        return None

    def build(self, source: Source) -> dict[str, bytes]:
        openvino = load_openvino()
        try:
            model = self._converted(openvino, openvino.Core().read_model(source.onnx.read_bytes()), source)
        except RuntimeError as error:
            raise ExportError(f"OpenVINO does not take the network: {_first_line(error)}") from error
        with tempfile.TemporaryDirectory() as folder:  # it writes to paths alone
            path = Path(folder) / "model.xml"
            openvino.save_model(model, path, compress_to_fp16=self.precision == "fp16")
            return {self.suffix: path.read_bytes(), ".bin": path.with_suffix(".bin").read_bytes()}

    def open(self, path: Path, threads: int) -> Run:
        openvino = load_openvino()
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        try:
            compiled = openvino.Core().compile_model(path, "CPU", settings)
        except RuntimeError as error:
            raise ExportError(f"OpenVINO refuses {path.name}: {_first_line(error)}") from error
        request = compiled.create_infer_request()

        def run(inputs: np.ndarray) -> np.ndarray:
            logits: np.ndarray = request.infer(feed(inputs), share_inputs=True)[OUTPUT]
            return logits

        return run

    def _converted(self, openvino: ModuleType, model: Any, source: Source) -> Any:
        return model


class OpenVinoFp16(OpenVino):
    """Weights in 16 bits; arithmetic stays fp32."""

    name = "openvino_fp16"
    precision = "fp16"


class OpenVinoInt8(OpenVino):
    """8-bit weights and activations by NNCF's post-training quantisation, calibrated on the reference split."""

    name = "openvino_int8"
    precision = "int8"

    def missing(self) -> str | None:
        reason = super().missing()
        if reason is not None:
            return reason
        try:
            _load_nncf()
        except ImportError as error:
            return f"openvino_int8 needs nncf ({_first_line(error)}); {HOW_TO_GET}"
        return None

    def saturable(self, path: Path) -> int:
        """Count products with weights outside ±64: oneDNN's kernels add pairs in 16 bits, as ONNX Runtime's do."""
        nodes = load_openvino().Core().read_model(path).get_ops()
        products = [node for node in nodes if node.get_type_name() in _PRODUCTS]
        weights = [_held_bytes(node.input_value(1).get_node()) for node in products]
        return sum(int(np.abs(values).max(initial=0)) > LARGEST_PAIR // 2 for values in weights)

    def _converted(self, openvino: ModuleType, model: Any, source: Source) -> Any:
        require_sound(source.calibration, source.task)
        nncf = _load_nncf()
        examples = nncf.Dataset(list(source.calibration), lambda example: feed(example[None]))
        with _quiet():
            quantized = nncf.quantize(
                model,
                examples,
                subset_size=len(source.calibration),
                **_settings(nncf, model, self.config.weight_bits),
            )
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


def load_openvino() -> ModuleType:
    """Import and return the library without its telemetry, which would send an event to its vendor.

    Raises:
        ExportError: it is not installed, or does not import; says how to get it.
    """
    try:
        with _without_telemetry():
            import openvino
    except (ImportError, OSError, RuntimeError) as error:
        raise ExportError(f"OpenVINO does not import here ({_first_line(error)}); {HOW_TO_GET}") from error
    found: ModuleType = openvino
    return found


def _load_nncf() -> ModuleType:
    with _without_telemetry(), _quiet():
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
def _without_telemetry() -> Iterator[None]:
    """Hide `openvino_telemetry` within the block; both libraries have a stand-in for it."""
    name = "openvino_telemetry"
    if name in sys.modules:  # the caller imported it
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # documented: the import then fails
    try:
        yield
    finally:
        del sys.modules[name]


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


def _first_line(error: Exception) -> str:
    return first_line(error, type(error).__name__)
