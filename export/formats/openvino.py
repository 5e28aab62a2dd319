"""OpenVINO's IR, for Intel's processors: the graph in XML and the weights beside it."""

import contextlib
import os
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.interface import compare_interfaces, preprocessing
from edgestill.export.onnx.sessions import IMAGE, OUTPUT, PROBABILITIES, feed, to_pixels
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError, first_line

HOW_TO_GET = "`pip install 'edgestill[openvino]'`"


class OpenVino(Format):
    """The fp32 file as IR. Arithmetic stays fp32; OpenVINO itself would choose bfloat16 where the CPU has it."""

    runtime = "openvino"
    suffix = ".xml"
    beside = (".bin",)
    is_program = True
    adds_interface = True

    def missing(self) -> str | None:
        try:
            load_openvino()
        except ExportError as error:
            return str(error)
        return None

    def build(self, source: Source, config: Any) -> Files:
        with refusals():
            return self.written(self.converted(read(source), source, config), source, config)

    def written(self, model: Any, source: Source, config: Any) -> Files:
        """Return the files of a model, behind the configured interface."""
        openvino = load_openvino()
        if config.interface == "image":
            model = _with_image_interface(model, preprocessing(source.task, config.opset), source.calibration[:16])
        with tempfile.TemporaryDirectory() as folder:  # it writes to paths alone
            path = Path(folder) / "model.xml"
            openvino.save_model(model, path, compress_to_fp16=self.precision == "fp16")
            return {self.suffix: path.read_bytes(), ".bin": path.with_suffix(".bin").read_bytes()}

    @abstractmethod
    def converted(self, model: Any, source: Source, config: Any) -> Any:
        """Return the model to save, made from the one that was read."""

    def open(self, path: Path, threads: int) -> Run:
        try:
            return CompiledRun(compiled(path, threads))
        except RuntimeError as error:
            raise ExportError(f"OpenVINO refuses {path.name}: {_first_line(error)}") from error


class CompiledRun:
    """`Run` by a compiled model: images or token ids to logits."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._takes_bytes = IMAGE in compiled.input(0).get_names()

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        return self.run(self.feed(inputs))

    def feed(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Convert inputs to the file's form."""
        return {IMAGE: to_pixels(inputs)} if self._takes_bytes else feed(inputs)

    def run(self, given: dict[str, np.ndarray]) -> np.ndarray:
        logits: np.ndarray = self._request.infer(given, share_inputs=True)[OUTPUT]
        return logits


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raise OpenVINO's errors as an ExportError."""
    try:
        yield
    except ExportError:
        raise
    except RuntimeError as error:
        raise ExportError(f"OpenVINO does not take the network: {_first_line(error)}") from error


def read(source: Source) -> Any:
    """Read the fp32 file."""
    return load_openvino().Core().read_model(source.onnx.read_bytes())


def compiled(model: Any, threads: int) -> Any:
    """Compile a model, or a file's, for the CPU, in fp32."""
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return load_openvino().Core().compile_model(model, "CPU", settings)


def _with_image_interface(model: Any, before: bytes, examples: np.ndarray) -> Any:
    """Return the model behind the operators of `before`, with probabilities beside its logits, after comparing both.

    The operators are those of the ONNX files, so that every runtime prepares a picture alike.

    Args:
        before: ONNX model from `image` to the model's input.
        examples: [N, C, H, W] float32 in [0, 1].
    """
    openvino = load_openvino()
    raw = CompiledRun(compiled(model, 1))
    prepared = openvino.Core().read_model(before)
    images = prepared.output(0).get_node().input_value(0)
    for target in model.input(0).get_node().output(0).get_target_inputs():
        target.replace_source_output(images)
    logits = model.output(0).get_node()
    shares = openvino.opset8.softmax(logits.input_value(0), axis=1)
    shares.output(0).set_names({PROBABILITIES})
    results = [openvino.opset8.result(shares), logits]
    found = openvino.Model(results, prepared.get_parameters(), model.get_friendly_name())
    request = compiled(found, 1).create_infer_request()

    def dressed(pixels: np.ndarray) -> list[np.ndarray]:
        answers = request.infer({IMAGE: pixels})
        return [answers[OUTPUT], answers[PROBABILITIES]]

    compare_interfaces(raw, dressed, examples)
    return found


class OpenVinoFloat(OpenVino):
    """Weights in 32 or 16 bits; arithmetic is fp32 either way."""

    def __init__(self, name: str, precision: str) -> None:
        self.name, self.precision = name, precision

    def converted(self, model: Any, source: Source, config: Any) -> Any:
        return model


def load_openvino() -> ModuleType:
    """Import and return the library without its telemetry, which would send an event to its vendor.

    Raises:
        ExportError: it is not installed, or does not import; says how to get it. Or an instruction set is switched off
            for oneDNN: OpenVINO's copy then ends the process in some networks (2026.2, a ViT).
    """
    limit = next((name for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA") if os.environ.get(name)), None)
    if limit is not None:
        raise ExportError(f"OpenVINO may end the process where {limit} is set; unset it")
    try:
        with without_telemetry():
            import openvino
    except (ImportError, OSError, RuntimeError) as error:
        raise ExportError(f"OpenVINO does not import here ({_first_line(error)}); {HOW_TO_GET}") from error
    found: ModuleType = openvino
    return found


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide `openvino_telemetry` within the block; OpenVINO and NNCF have a stand-in for it."""
    name = "openvino_telemetry"
    if name in sys.modules:  # the caller imported it
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # documented: the import then fails
    try:
        yield
    finally:
        del sys.modules[name]


def _first_line(error: Exception) -> str:
    return first_line(error, type(error).__name__)
