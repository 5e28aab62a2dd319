"""8-bit weights and activations as ONNX Runtime's CPU kernels want them: QDQ, unsigned activations."""

from collections.abc import Iterator
from pathlib import Path

from export.formats.base import Format, Run, Source
from export.formats.calibrated import calibrated, nearest_to_fp32
from export.quantize import CPU
from export.sessions import runner


class Int8(Format):
    name = "int8"
    precision = "int8"
    runtime = "onnxruntime"
    suffix = ".onnx"

    def variants(self, source: Source) -> Iterator[tuple[str, dict[str, bytes]]]:
        return calibrated(source, self.config, CPU)

    def build(self, source: Source) -> dict[str, bytes]:
        return nearest_to_fp32(source, self.variants(source))

    def open(self, path: Path, threads: int) -> Run:
        return runner(path, threads)
