"""Weights stored in 16 bits, and arithmetic in 32: half the bytes to download, on any processor."""

from pathlib import Path
from typing import Any

import numpy as np

from edgestill.export.formats.base import Format, Source
from edgestill.export.onnx.sessions import runner
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError


class Fp16Stored(Format):
    name = "fp16_stored"
    precision = "fp16"
    runtime = "onnxruntime"
    suffix = ".onnx"

    def build(self, source: Source, config: Any) -> dict[str, bytes]:
        import onnx

        graph = (model := onnx.load(source.onnx)).graph
        for tensor in [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]:
            with np.errstate(over="ignore"):
                half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            if not np.isfinite(half).all():
                raise ExportError(f"weight {tensor.name} is beyond what 16 bits hold")
            stored = f"{tensor.name}.fp16"
            graph.node.insert(0, onnx.helper.make_node("Cast", [stored], [tensor.name], to=onnx.TensorProto.FLOAT))
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, stored))
        return {self.suffix: model.SerializeToString()}

    def open(self, path: Path, threads: int) -> Run:
        return runner(path, threads)
