"""The checked ONNX file, unchanged."""

from pathlib import Path

from edgestill.export.formats.base import Format, Source
from edgestill.export.onnx.sessions import runner
from edgestill.export.run import Run


class Fp32(Format):
    name = "fp32"
    precision = "fp32"
    runtime = "onnxruntime"
    suffix = ".onnx"

    def build(self, source: Source) -> dict[str, bytes]:
        return {self.suffix: source.onnx.read_bytes()}

    def open(self, path: Path, threads: int) -> Run:
        return runner(path, threads)
