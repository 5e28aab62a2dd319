"""The teacher: a CIFAR-style ResNet, trained here or loaded from a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from pipeline.blocks import CifarResNet, Shortcut
from pipeline.checkpoint import load_weights, read_metadata
from pipeline.cost import Cost
from pipeline.errors import CheckpointError
from pipeline.frozen import Frozen, existing_file
from pipeline.metrics import Metrics
from pipeline.task import Task
from pipeline.training import TrainingConfig
from pipeline.training_state import EpochRecord

TEACHERS: dict[str, tuple[int, int, int]] = {  # blocks a stage; He et al. 2015, section 4.2, depth 6n + 2
    f"resnet{6 * n + 2}": (n, n, n) for n in (3, 5, 7, 9, 18)
}
_WIDTHS = (16, 32, 64)

if TYPE_CHECKING:
    TeacherName = str
else:
    TeacherName = Literal[*TEACHERS]


class TeacherConfig(Frozen):
    architecture: TeacherName = Field("resnet56", description="of the built-in CIFAR-style family")
    shortcut: Shortcut = Field("A", description="A pads with zeros, B projects with a 1x1 convolution")
    weights: Path | None = Field(None, description=".safetensors or torch checkpoint; null trains the teacher here")
    mean: tuple[float, ...] | None = Field(None, description="input normalisation; null takes the training pixels'")
    std: tuple[float, ...] | None = Field(None, description="as mean; give what foreign weights were trained with")
    image_size: int | None = Field(None, ge=1, description="side that foreign weights were trained at; checked")
    training: TrainingConfig = TrainingConfig()

    @field_validator("weights")
    @classmethod
    def _exists(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return path and existing_file(path, info)


class TeacherResult(Frozen):
    trained_here: bool
    validation: Metrics
    cost: Cost
    best_epoch: int | None
    curve: tuple[EpochRecord, ...]


def build_teacher(config: TeacherConfig, task: Task) -> CifarResNet:
    """The teacher's network for a task, with fresh weights.

    Raises:
        CheckpointError: the configured normalisation has another number of channels than the images.
    """
    mean, std = config.mean or task.mean, config.std or task.std
    if not len(mean) == len(std) == task.input_shape[0]:
        raise CheckpointError(
            f"teacher.mean and teacher.std hold {len(mean)} and {len(std)} values, but the images have "
            f"{task.input_shape[0]} channel(s); give a value a channel"
        )
    blocks = TEACHERS[config.architecture]
    return CifarResNet(blocks, _WIDTHS, num_classes=task.num_classes, mean=mean, std=std, shortcut=config.shortcut)


def load_teacher(config: TeacherConfig, task: Task, path: Path) -> CifarResNet:
    """The teacher with the weights of a file.

    Raises:
        CheckpointError: the file does not fit, or it was trained on images of another size.
    """
    network = build_teacher(config, task)
    load_weights(network, path)
    trained_at = read_metadata(path).get("input_shape", str(config.image_size or ""))
    sizes = [int(n) for n in trained_at.split("x") if n]
    if sizes and sizes[-1] != task.input_shape[-1]:
        raise CheckpointError(
            f"{path} was trained on images of {sizes[-1]} x {sizes[-1]} pixels, and the data's are "
            f"{task.input_shape[1]} x {task.input_shape[2]}; resize the data, or train a teacher by leaving out "
            "teacher.weights"
        )
    return network


def teacher_metadata(config: TeacherConfig, task: Task) -> dict[str, str]:
    """What is written beside the teacher's weights, so that a later load can be checked."""
    return {
        "architecture": config.architecture,
        "shortcut": config.shortcut,
        "input_shape": "x".join(str(n) for n in task.input_shape),
    }


def frozen(network: nn.Module) -> nn.Module:
    """In evaluation mode and without gradients, as a teacher is used."""
    return network.eval().requires_grad_(False)
