"""TorchScript archives as teachers, `teacher: torchscript:model.pt`: black boxes but for gradients.

An archive is a program. The user named it by hand, in the configuration (docs/explanation/security.md).
"""

import io
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from edgestill.pipeline.errors import CheckpointError, ExportError, first_line
from edgestill.pipeline.frozen import Frozen, GivenPath, existing_file
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.family import ForeignConfig, ForeignTeacher
from edgestill.pipeline.teachers.adapted.network import Adapted
from edgestill.pipeline.teachers.adapted.onnx_graph import for_export, joined, read_graph
from edgestill.pipeline.teachers.adapted.pixels import Pixels, Sight
from edgestill.pipeline.teachers.adapted.weights import Held
from edgestill.pipeline.teachers.teacher import FileTeacher, Part

_OPSET = 20  # the last of torch's older exporter


class TorchScriptConfig(ForeignConfig):
    names_code: ClassVar[tuple[str, ...]] = ("file",)

    name: Literal["torchscript"] = "torchscript"
    file: GivenPath = Field(description="TorchScript archive of a classifier of images, as torch.jit.save writes it")
    channels: int | None = Field(None, ge=1, description="channels that it takes; null: the data's")

    @field_validator("file")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_file(path, info)


class ScriptNetwork(Adapted):
    """A script between the data's pixels and classes; it writes its own ONNX file."""

    shape: tuple[int, ...] = ()  # of the data's images

    @property
    def onnx_bytes(self) -> bytes:
        """The file of the network, for export: the script's by torch's older exporter, for the newer one takes none.

        Raises:
            ExportError: an operator has no ONNX form.
        """
        made = io.BytesIO()
        example = self.before.cpu()(torch.rand(2, *self.shape, generator=torch.Generator().manual_seed(0)))
        script = self.model.script
        assert isinstance(script, torch.jit.ScriptModule)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    script.cpu(),
                    (example,),
                    made,  # type: ignore[arg-type]  # the older exporter takes it
                    dynamo=False,
                    opset_version=_OPSET,
                    input_names=["x"],
                    output_names=["y"],
                    dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
                )
        except Exception as error:  # the exporter's own errors
            raise ExportError(f"the TorchScript archive has no ONNX form: {first_line(error)}") from error
        pixels, given = self.before, read_graph(made.getvalue(), Path("the TorchScript archive"))
        assert isinstance(pixels, Pixels)
        data = joined(given, pixels, self.shape, log=self.gives_probabilities, order=self.order, embedding=None)
        return for_export(data)


class TorchScriptTeacher(FileTeacher, ForeignTeacher):
    name: ClassVar[str] = "torchscript"
    network: ClassVar[type[Adapted]] = ScriptNetwork
    Config: ClassVar[type[Frozen]] = TorchScriptConfig
    config: TorchScriptConfig  # type: ignore[assignment]

    @property
    def gives(self) -> frozenset[Part]:
        return frozenset({"logits", "inputs", "gradients"})

    def load(self, task: Task, path: Path) -> nn.Module:
        return self.build(task) if path == self.source else super().load(task, path)

    def sight(self, task: Task) -> Sight:
        return Sight(self.config.channels or task.input_shape[0])

    def make(self, task: Task, outputs: int, held: Held | None) -> nn.Module:
        try:
            found: Any = torch.jit.load(str(self.config.file), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:  # a damaged archive leads torch into errors of any kind
            raise CheckpointError(f"{self.config.file} is no TorchScript archive: {first_line(error)[:200]}") from None
        network: nn.Module = found.float()
        return network

    def wrapped(self, model: nn.Module, task: Task) -> Adapted:
        network = super().wrapped(_Closed(model), task)
        assert isinstance(network, ScriptNetwork)
        network.shape = task.input_shape
        return network

    def _held(self) -> Held | None:
        return None


class _Closed(nn.Module):
    """Module around a script, whose own modules take no hooks."""

    def __init__(self, script: nn.Module) -> None:
        super().__init__()
        self.script = script

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.script(inputs)
