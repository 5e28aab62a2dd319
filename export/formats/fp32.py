"""The checked ONNX file, unchanged."""

from pathlib import Path
from typing import Any, ClassVar

from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.sessions import RUNTIME, runner
from edgestill.export.run import Run


class Fp32(Format):
    name = "fp32"
    precision = "fp32"
    runtime = RUNTIME
    suffix = ".onnx"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text", "lm"})

    def build(self, source: Source, config: Any) -> Files:
        return {self.suffix: source.onnx.read_bytes()}

    def open(self, path: Path, threads: int) -> Run:
        return runner(path, threads)
