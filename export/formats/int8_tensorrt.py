"""8-bit weights and activations as TensorRT wants them: symmetric, signed, weights in float behind QDQ pairs.

An engine is built from it. On a CPU it is slower than fp32 and no smaller, which the gate then says.
"""

from collections.abc import Iterator
from pathlib import Path

from export.formats.base import Format, Run, Source
from export.formats.calibrated import calibrated, nearest_to_fp32
from export.quantize import TENSORRT
from export.sessions import runner


class Int8TensorRT(Format):
    name = "int8_tensorrt"
    precision = "int8"
    runtime = "onnxruntime"
    suffix = ".onnx"

    def variants(self, source: Source) -> Iterator[tuple[str, dict[str, bytes]]]:
        return calibrated(source, self.config, TENSORRT)

    def build(self, source: Source) -> dict[str, bytes]:
        return nearest_to_fp32(source, self.variants(source))

    def open(self, path: Path, threads: int) -> Run:
        return runner(path, threads)
