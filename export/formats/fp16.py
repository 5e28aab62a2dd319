"""Weights and arithmetic in 16 bits; inputs and logits stay float32, so that a caller changes nothing."""

from pathlib import Path
from typing import Any

from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.sessions import RUNTIME, runner
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError, first_line


class Fp16(Format):
    name = "fp16"
    precision = "fp16"
    runtime = RUNTIME
    suffix = ".onnx"

    def build(self, source: Source, config: Any) -> Files:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        try:
            model = convert_float_to_float16(onnx.load(source.onnx), keep_io_types=True)
            OnnxModel(model).topological_sort()  # the converter appends its casts behind the nodes that read them
            onnx.checker.check_model(model)
        except Exception as error:  # the converter's error types share no base class
            raise ExportError(f"the network has no fp16 form: {first_line(error)}") from error
        if not any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer):
            raise ExportError("the conversion changed nothing: no weight of the network went to 16 bits")
        return {self.suffix: model.SerializeToString()}

    def open(self, path: Path, threads: int) -> Run:
        return runner(path, threads)
