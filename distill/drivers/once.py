"""The driver of a plain distillation: one lesson."""

from typing import ClassVar, Literal

from torch import nn

from edgestill.distill.distilled import Distilled
from edgestill.distill.drivers.base import Driver, DriverConfig, Learn, Lesson
from edgestill.pipeline.data.splits import Splits


class OnceConfig(DriverConfig):
    """One training of the student by the teacher."""

    name: Literal["once"] = "once"


class Once(Driver):
    """One lesson by the run's teacher."""

    name: ClassVar[str] = "once"
    paper: ClassVar[str] = "a baseline without a paper, 2026"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text", "lm"})
    Config: ClassVar[type[DriverConfig]] = OnceConfig

    def run(self, learn: Learn, teacher: nn.Module, splits: Splits) -> Distilled:
        return learn(Lesson())
