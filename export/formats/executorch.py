"""ExecuTorch's .pte, for phones and boards: the network by torch.export, with its layers handed to XNNPACK."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from edgestill.export.calibration import require_sound
from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.sessions import feed
from edgestill.export.onnx.write import signature
from edgestill.export.quiet import quiet
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError, first_line
from edgestill.pipeline.frozen import Frozen

HOW_TO_GET = "`pip install 'edgestill[executorch]'`"
_DELEGATE = "executorch_call_delegate"


class ExecutorchConfig(Frozen):
    max_batch: int = Field(
        8, ge=1, le=1024, description="batch size that memory is planned for; larger batches go in parts; 1 is leanest"
    )


class ExecutorchKeys(Frozen):
    """Key of the format under `export`."""

    executorch: ExecutorchConfig = ExecutorchConfig()


class ExecuTorch(Format):
    """ExecuTorch form in fp32. Memory is planned at build time, for `export.executorch.max_batch` examples at once."""

    name = "executorch"
    precision = "fp32"
    runtime = "executorch"
    suffix = ".pte"
    is_program = True
    needs_network = True
    Config = ExecutorchKeys
    _libraries: tuple[str, ...] = (
        "executorch.exir",
        "executorch.backends.xnnpack.partition.xnnpack_partitioner",
        "executorch.runtime",
    )

    def missing(self) -> str | None:
        try:
            with quiet():
                for library in self._libraries:
                    importlib.import_module(library)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:  # it uses torch's internals
            reason = first_line(error, type(error).__name__)
            return f"ExecuTorch does not import beside torch {torch.__version__} ({reason}); {HOW_TO_GET}"
        return None

    def build(self, source: Source, config: ExecutorchKeys) -> Files:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            with quiet():
                program = self._program(source, config)
                edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
                nodes = [node.name for node in edge.exported_program().graph.nodes if node.op == "call_function"]
                data = bytes(edge.to_executorch().buffer)
        except ExportError:
            raise
        except Exception as error:  # its passes' error types share no base class
            raise ExportError(f"the network has no ExecuTorch form: {first_line(error)}") from error
        if not any(name.startswith(_DELEGATE) for name in nodes):
            raise ExportError("XNNPACK took no layer of the network: ExecuTorch would run its slow reference kernels")
        return {self.suffix: data}

    def _program(self, source: Source, config: Any) -> Any:
        """Return the exported program to lower."""
        return _Traced.of(source, config.executorch.max_batch).exported()

    def open(self, path: Path, threads: int) -> Run:
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        try:
            with quiet():
                portable_lib._unsafe_reset_threadpool(threads)  # the only way; for the whole process
                program = Runtime.get().load_program(path.read_bytes())
                method = program.load_method("forward")
        except RuntimeError as error:
            raise ExportError(f"ExecuTorch refuses {path.name}: {str(error).splitlines()[0]}") from error
        largest = method.metadata.input_tensor_meta(0).sizes()[0]

        def run(inputs: np.ndarray, _alive: object = program) -> np.ndarray:  # the program owns the method's memory
            return np.concatenate([method.execute(_tensors(batch))[0].numpy() for batch in _parts(inputs, largest)])

        return run


class ExecuTorchInt8(ExecuTorch):
    """ExecuTorch form with 8-bit weights, a scale a channel, and activations, by PT2E for XNNPACK."""

    name = "executorch_int8"
    precision = "int8"
    _libraries = (
        *ExecuTorch._libraries,
        "executorch.backends.xnnpack.quantizer.xnnpack_quantizer",
        "torchao.quantization.pt2e.quantize_pt2e",
    )

    def _program(self, source: Source, config: Any) -> Any:
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        require_sound(source.calibration, source.task)
        traced = _Traced.of(source, config.executorch.max_batch)
        quantizer = xnnpack_quantizer.XNNPACKQuantizer()
        quantizer.set_global(xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True))
        observed = prepare_pt2e(traced.exported().module(), quantizer)
        with torch.no_grad():
            for batch in _parts(source.calibration, config.executorch.max_batch):
                observed(*_tensors(batch))
        return traced._replace(network=convert_pt2e(observed)).exported()


class _Traced(NamedTuple):
    """Network with the inputs to trace it by, and their dynamic sides."""

    network: nn.Module
    inputs: tuple[Tensor, ...]
    sides: tuple[dict[int, Any], ...]

    @classmethod
    def of(cls, source: Source, max_batch: int) -> "_Traced":
        network, example, dynamic = signature(source.network, source.task.inputs)
        if max_batch == 1:
            sides = tuple({dimension: side for dimension, side in each.items() if dimension} for each in dynamic)
        else:
            batch = torch.export.Dim("batch", min=1, max=max_batch)
            sides = tuple({**each, 0: batch} for each in dynamic)
        # The example has the largest batch: from a smaller one, convolutions conclude that it stays below 16.
        inputs = tuple(tensor[:1].expand(max_batch, *tensor.shape[1:]).clone() for tensor in example)
        return cls(network, inputs, sides)

    def exported(self) -> Any:
        return torch.export.export(self.network, self.inputs, dynamic_shapes=self.sides)


def _parts(inputs: np.ndarray, largest: int) -> list[np.ndarray]:
    return [inputs[start : start + largest] for start in range(0, len(inputs), largest)]


def _tensors(inputs: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(np.require(host, requirements=["C", "W"])) for host in feed(inputs).values()]
