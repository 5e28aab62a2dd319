"""Result of one distillation."""

from typing import Any, NamedTuple

from torch import nn

from edgestill.distill.methods.base import Exhibit
from edgestill.pipeline.training.fit import FitResult


class Distilled(NamedTuple):
    student: nn.Module  # as it ships
    fitted: FitResult
    measures: dict[str, float]  # the methods' own figures
    exhibits: tuple[Exhibit, ...]
    state: dict[str, Any]  # of the recipe at the best epoch; a later training of this student goes on from it
    cautions: tuple[str, ...] = ()  # on methods that do not go together, and on what they could not tell
