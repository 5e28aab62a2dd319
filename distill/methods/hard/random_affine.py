"""Augmentation by random spatial transforms of a known range: the baseline of HARD."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field

from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.hard.affine import AXES, Padding, uniform, warp
from edgestill.distill.methods.hard.augmentor import with_augmented
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.device import full_precision
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import Part


class RandomAffineConfig(MethodConfig):
    """Bounds of the transforms; each amount is drawn evenly between minus and plus its bound."""

    name: Literal["random_affine"] = "random_affine"
    max_shift: float = tunable(
        0.1, ge=0, le=0.5, tune=(0.0, 0.3), description="largest shift, as a fraction of width and height"
    )
    max_rotation_deg: float = tunable(
        10.0, ge=0, le=180, tune=(0.0, 60.0), description="largest rotation about the centre, in degrees, either way"
    )
    max_scale: float = tunable(
        1.1, ge=1, le=2, tune=(1.0, 1.5), description="largest factor of enlargement, and of shrinkage"
    )
    max_shear_deg: float = Field(0.0, ge=0, le=45, description="largest shear along either axis, in degrees")
    augmented_weight: float = Field(1.0, ge=0, le=100, description="weight (w) of the loss on augmented images")
    padding: Padding = Field("reflection", description="fill for pixels beyond the image's edge")


class RandomAffine(Method):
    """Loss D(clean) + w D(augmented): each batch has a warped copy, with the teacher's answer to it as target."""

    name: ClassVar[str] = "random_affine"
    paper: ClassVar[str] = "Beyer et al. 2022 (function matching), arXiv:2106.05237"
    fills: ClassVar[frozenset[Slot]] = frozenset({"data"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        elicitation=("expansion",),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        cost=5.0,
    )
    Config: ClassVar[type[MethodConfig]] = RandomAffineConfig

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"inputs"})

    def check(self, task: Task, train: ImageSplit) -> None:
        refuse_text(self.name, task)

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        amounts = self._bounds() * uniform(len(batch.targets), len(AXES), generator)
        device = batch.inputs.device
        with full_precision(device):
            augmented = warp(batch.inputs, amounts.to(device), self.config.padding)
        return with_augmented(batch, augmented, self.config.augmented_weight)

    def _bounds(self) -> torch.Tensor:
        """Bounds of the amounts, in the order of AXES."""
        config = self.config
        shear = math.tan(math.radians(config.max_shear_deg))
        shift, scale = config.max_shift, math.log(config.max_scale)
        return torch.tensor([math.radians(config.max_rotation_deg), shift, shift, scale, shear, shear])


def refuse_text(name: str, task: Task) -> None:
    if task.kind != "image":
        raise ConfigError(
            [f"method {name!r} transforms images, and the task's inputs are {task.kind}; take it off the list"]
        )
