"""Texts to classify: sequences of token ids."""

# N texts, T tokens

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from edgestill.pipeline.input_kind.base import PADDING, Damage, TaskFields, TokenIds


def _drop(share: float) -> Damage:
    def damage(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        dropped = np.full_like(ids, PADDING)
        for row, (text, draws) in enumerate(zip(ids, rng.random(ids.shape), strict=True)):
            keep = (text != PADDING) & (draws >= share)
            keep[0] = True  # a text keeps its first token, which some networks read their answer from
            dropped[row, : keep.sum()] = text[keep]
        return dropped

    return damage


def _swap(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Swap neighbouring tokens with probability 0.2 a pair, from the second token on."""
    swapped = ids.copy()
    for row, draws in zip(swapped, rng.random(ids.shape), strict=True):
        for t in range(1, int((row != PADDING).sum()) - 1, 2):
            if draws[t] < 0.2:
                row[t], row[t + 1] = row[t + 1], row[t]
    return swapped


@dataclass(frozen=True)
class Texts(TokenIds):
    """Token ids [T]; a batch may be shorter than T."""

    name: ClassVar[str] = "text"
    plural: ClassVar[str] = "texts"
    classifier: ClassVar[str] = "A text classifier"
    script: ClassVar[str] = "run_texts.py"
    damages: ClassVar[Mapping[str, Damage]] = {
        "a tenth of the tokens dropped": _drop(0.1),
        "three tenths of the tokens dropped": _drop(0.3),
        "a fifth of neighbouring pairs swapped": _swap,
    }

    @classmethod
    def of(cls, task: TaskFields) -> Self:
        if len(task.input_shape) != 1 or task.vocab_size is None or task.mean or task.std:
            raise ValueError("a text task has an input_shape of (length,), a vocab_size, and neither mean nor std")
        return cls(task.input_shape, task.vocab_size, task.tokenizer_sha256)
