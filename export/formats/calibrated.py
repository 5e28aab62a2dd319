"""Shared code of the INT8 formats: running, a file for each calibration method, and the choice without labels."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgestill.export.calibration import require_sound
from edgestill.export.formats.base import Format, Source
from edgestill.export.onnx.quantize import METHODS, Scheme, quantize
from edgestill.export.onnx.saturating import saturating_runner
from edgestill.export.onnx.saturation import saturable, saturates_here
from edgestill.export.onnx.sessions import runner
from edgestill.export.run import Run

if TYPE_CHECKING:
    from edgestill.export.config import ExportConfig

Files = dict[str, bytes]


class CpuInt8(Format):
    """Quantised ONNX file, run by ONNX Runtime on a CPU."""

    precision = "int8"
    runtime = "onnxruntime"
    suffix = ".onnx"
    scheme: ClassVar[Scheme]

    def variants(self, source: Source) -> Iterator[tuple[str, Files]]:
        return calibrated(source, self.config, self.scheme)

    def build(self, source: Source) -> Files:
        return nearest_to_fp32(source, self.variants(source))

    def open(self, path: Path, threads: int) -> Run:
        return runner(path, threads)

    def open_exact(self, path: Path, threads: int) -> Run:
        return runner(path, threads, exact=True)

    def saturable(self, path: Path) -> int:
        return len(saturable(path.read_bytes()))

    def elsewhere(self, path: Path, threads: int) -> Run:
        return self.open_exact(path, threads) if saturates_here() else saturating_runner(path.read_bytes(), threads)


def calibrated(source: Source, config: "ExportConfig", scheme: Scheme) -> Iterator[tuple[str, Files]]:
    """Yield (method, files) for each configured calibration method."""
    require_sound(source.calibration, source.task)
    asked, bits = config.calibration, config.weight_bits
    for method in METHODS if asked.method == "auto" else (asked.method,):
        yield method, {".onnx": quantize(source.onnx, source.calibration, method, asked.percentile, scheme, bits)}


def nearest_to_fp32(source: Source, variants: Iterable[tuple[str, Files]]) -> Files:
    """Return the files with the logits nearest to fp32's on the calibration examples, by mean absolute difference."""
    built = [files for _, files in variants]
    if len(built) == 1:
        return built[0]
    expected = runner(source.onnx)(source.calibration)
    return min(built, key=lambda files: float(np.abs(runner(files[".onnx"])(source.calibration) - expected).mean()))
