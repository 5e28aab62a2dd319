"""What the INT8 formats share: one file for each calibration method, and the choice between them without labels."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from export.calibration import require_sound
from export.formats.base import Source
from export.quantize import METHODS, Scheme, quantize
from export.sessions import runner

if TYPE_CHECKING:
    from export.config import ExportConfig

Files = dict[str, bytes]


def calibrated(source: Source, config: "ExportConfig", scheme: Scheme) -> Iterator[tuple[str, Files]]:
    """(method, files) of each calibration that the configuration asks for."""
    require_sound(source.calibration, source.task)
    asked, bits = config.calibration, config.weight_bits
    for method in METHODS if asked.method == "auto" else (asked.method,):
        yield method, {".onnx": quantize(source.onnx, source.calibration, method, asked.percentile, scheme, bits)}


def nearest_to_fp32(source: Source, variants: Iterable[tuple[str, Files]]) -> Files:
    """The files whose logits on the calibration examples are nearest to fp32's."""
    built = [files for _, files in variants]
    if len(built) == 1:
        return built[0]
    expected = runner(source.onnx)(source.calibration)
    return min(built, key=lambda files: float(np.abs(runner(files[".onnx"])(source.calibration) - expected).mean()))
