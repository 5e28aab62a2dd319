"""CIFAR-style ResNets (He et al. 2015, arXiv:1512.03385, section 4.2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import nn

from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.networks.cifar_resnet import CifarResNet, Shortcut
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.metadata_checks import require_image_size
from edgestill.pipeline.teachers.named import NamedConfig, NamedTeacher

RESNETS: dict[str, tuple[int, int, int]] = {  # blocks a stage; depth 6n + 2
    f"resnet{6 * n + 2}": (n, n, n) for n in (1, 2, 3, 5, 7, 9, 18)
}
_WIDTHS = (16, 32, 64)


class ResNetConfig(NamedConfig):
    shortcut: Shortcut = Field(
        "A", description="shortcut type of ResNets; A pads with zeros, B projects with a 1x1 convolution"
    )
    mean: tuple[float, ...] | None = Field(
        None, description="input mean of each channel, as foreign weights expect; null takes the training pixels'"
    )
    std: tuple[float, ...] | None = Field(
        None, description="input std of each channel, as foreign weights expect; null takes the training pixels'"
    )
    image_size: int | None = Field(
        None, ge=1, description="image side in pixels that foreign weights were trained at; the data's must equal it"
    )


class ResNetTeacher(NamedTeacher):
    Config: ClassVar[type[ResNetConfig]] = ResNetConfig
    kinds: ClassVar[frozenset[str]] = frozenset({"image"})
    architectures: ClassVar[tuple[str, ...]] = tuple(RESNETS)
    config: ResNetConfig

    def build(self, task: Task) -> nn.Module:
        """Build the network.

        Raises:
            CheckpointError: the configured normalisation has another number of channels than the images.
        """
        config = self.config
        mean, std = config.mean or task.mean, config.std or task.std
        if not len(mean) == len(std) == task.input_shape[0]:
            raise CheckpointError(
                f"teacher.mean and teacher.std hold {len(mean)} and {len(std)} values, but the images have "
                f"{task.input_shape[0]} channel(s); give a value a channel"
            )
        blocks = RESNETS[config.architecture]
        return CifarResNet(blocks, _WIDTHS, num_classes=task.num_classes, mean=mean, std=std, shortcut=config.shortcut)

    def metadata(self, task: Task) -> dict[str, str]:
        return super().metadata(task) | {"shortcut": self.config.shortcut}

    def check(self, metadata: Mapping[str, str], task: Task, path: Path) -> None:
        require_image_size({"input_shape": str(self.config.image_size or ""), **metadata}, task, path)
