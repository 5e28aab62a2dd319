"""TorchScript archives as teachers, `teacher: torchscript:model.pt`: black boxes but for gradients.

An archive is a program. The user named it by hand, in the configuration (docs/security.md).
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from edgestill.pipeline.errors import CheckpointError, first_line
from edgestill.pipeline.frozen import Frozen, GivenPath, existing_file
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.family import ForeignConfig, ForeignTeacher
from edgestill.pipeline.teachers.adapted.network import Adapted
from edgestill.pipeline.teachers.adapted.pixels import Sight
from edgestill.pipeline.teachers.adapted.weights import Held
from edgestill.pipeline.teachers.teacher import Part


class TorchScriptConfig(ForeignConfig):
    name: Literal["torchscript"] = "torchscript"
    file: GivenPath = Field(description="TorchScript archive of a classifier of images, as torch.jit.save writes it")
    channels: int | None = Field(None, ge=1, description="channels that it takes; null: the data's")

    @field_validator("file")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_file(path, info)


class TorchScriptTeacher(ForeignTeacher):
    name: ClassVar[str] = "torchscript"
    short = "file"
    Config: ClassVar[type[Frozen]] = TorchScriptConfig
    config: TorchScriptConfig  # type: ignore[assignment]

    @property
    def title(self) -> str:
        return self.config.file.name

    @property
    def source(self) -> Path | None:
        return self.config.file

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
        return super().wrapped(_Closed(model), task)

    def _held(self) -> Held | None:
        return None


class _Closed(nn.Module):
    """Module around a script, whose own modules take no hooks."""

    def __init__(self, script: nn.Module) -> None:
        super().__init__()
        self.script = script

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.script(inputs)
