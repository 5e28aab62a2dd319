"""8-bit weights in an ONNX file, with activations quantised as they come: no calibration, for language models first."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.sessions import RUNTIME, runner
from edgestill.export.quiet import quiet
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError, first_line

_PRODUCTS = ("MatMul", "Gemm")


class Int8Dynamic(Format):
    """8-bit products whose activations are quantised in each call, with 7-bit weights, so that no processor saturates.

    Embeddings stay in fp32.
    """

    name = "int8_dynamic"
    precision = "int8"
    runtime = RUNTIME
    suffix = ".onnx"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text", "lm"})

    def build(self, source: Source, config: Any) -> Files:
        import onnx
        from onnxruntime import quantization as ort

        with tempfile.TemporaryDirectory() as folder, quiet():
            plain, target = Path(folder) / "plain.onnx", Path(folder) / "quantized.onnx"
            model = onnx.load(source.onnx)
            del model.graph.value_info[:]  # the quantiser transposes weights, and their old sides would contradict
            _untie(model.graph)
            onnx.save(model, plain)
            try:
                ort.quantize_dynamic(
                    plain,
                    target,
                    op_types_to_quantize=list(_PRODUCTS),
                    per_channel=True,
                    reduce_range=True,
                    weight_type=ort.QuantType.QInt8,
                    extra_options={"MatMulConstBOnly": True},  # the products inside attention stay in float
                )
            except Exception as error:  # the quantiser's error types share no base class
                raise ExportError(f"the quantiser refuses the network: {first_line(error)}") from error
            model = onnx.load(target)
        if not any(node.op_type == "DynamicQuantizeLinear" for node in model.graph.node):
            raise ExportError("the quantiser changed nothing: the network has no product with weights")
        del model.graph.value_info[:]
        del model.metadata_props[:]
        onnx.checker.check_model(model)
        return {self.suffix: model.SerializeToString()}

    def open(self, path: Path, threads: int) -> Run:
        return runner(path, threads)


def _untie(graph: Any) -> None:
    """Give each product a copy of weights that others read too: the quantiser changes them in place."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        for place, name in enumerate(node.input):
            if node.op_type in _PRODUCTS and name in weights and readers[name] > 1:
                copy = graph.initializer.add()
                copy.CopyFrom(weights[name])
                copy.name = node.input[place] = f"{name}_{node.name}"
