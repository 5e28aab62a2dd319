"""OpenVINO's IR, for Intel's processors: the graph in XML and the weights beside it."""

import contextlib
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.sessions import OUTPUT, feed
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError, first_line

HOW_TO_GET = "`pip install 'edgestill[openvino]'`"


class OpenVino(Format):
    """The fp32 file as IR. Arithmetic stays fp32; OpenVINO itself would choose bfloat16 where the CPU has it."""

    runtime = "openvino"
    suffix = ".xml"
    beside = (".bin",)
    is_program = True

    def missing(self) -> str | None:
        try:
            load_openvino()
        except ExportError as error:
            return str(error)
        return None

    def build(self, source: Source, config: Any) -> Files:
        openvino = load_openvino()
        try:
            model = self.converted(openvino.Core().read_model(source.onnx.read_bytes()), source, config)
        except RuntimeError as error:
            raise ExportError(f"OpenVINO does not take the network: {_first_line(error)}") from error
        with tempfile.TemporaryDirectory() as folder:  # it writes to paths alone
            path = Path(folder) / "model.xml"
            openvino.save_model(model, path, compress_to_fp16=self.precision == "fp16")
            return {self.suffix: path.read_bytes(), ".bin": path.with_suffix(".bin").read_bytes()}

    @abstractmethod
    def converted(self, model: Any, source: Source, config: Any) -> Any:
        """Return the model to save, made from the one that was read."""

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


class OpenVinoFloat(OpenVino):
    """Weights in 32 or 16 bits; arithmetic is fp32 either way."""

    def __init__(self, name: str, precision: str) -> None:
        self.name, self.precision = name, precision

    def converted(self, model: Any, source: Source, config: Any) -> Any:
        return model


def load_openvino() -> ModuleType:
    """Import and return the library without its telemetry, which would send an event to its vendor.

    Raises:
        ExportError: it is not installed, or does not import; says how to get it.
    """
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
