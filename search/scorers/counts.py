"""Baselines without activations: parameters, multiply-accumulates, and chance."""

import random
from typing import ClassVar

from edgestill.pipeline.frozen import derive_seed
from edgestill.search.scorers.base import Scorer, Student


class Params(Scorer):
    """Number of trainable parameters."""

    name: ClassVar[str] = "params"

    def __call__(self, student: Student) -> float:
        return float(student.cost.params)


class Flops(Scorer):
    """Multiply-accumulates of one image."""

    name: ClassVar[str] = "flops"

    def __call__(self, student: Student) -> float:
        return float(student.cost.flops)


class Random(Scorer):
    """Random score, uniform in [0, 1), from the seed and the architecture alone."""

    name: ClassVar[str] = "random"

    def __call__(self, student: Student) -> float:
        return random.Random(derive_seed(self.context.seed, "random", student.key)).random()
