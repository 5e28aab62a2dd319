"""HARD's augmentors: a file and a line a family."""

from collections.abc import Callable
from typing import Any, Literal

from distill.augmentors.affine import Affine
from distill.augmentors.base import Augmentor
from distill.methods.base import Context

Family = Literal["affine"]

FAMILIES: dict[Family, Callable[[Any, Context], Augmentor]] = {
    "affine": lambda config, context: Affine(context.task.input_shape, config.initial_share, config.padding),
}

__all__ = ["FAMILIES", "Augmentor", "Family"]
