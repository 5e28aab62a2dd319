"""Texts: sequences of int64 token ids in [0, vocab_size), of which 0 is padding."""

# N texts, T tokens

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from edgestill.pipeline.input_kind.base import Damage, InputKind, Shown, TaskFields

if TYPE_CHECKING:
    from torch import Tensor

PADDING = 0  # the token id of padding


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
class Texts(InputKind):
    """Token ids [T]; a batch may be shorter than T."""

    vocab_size: int  # number of token ids, padding included
    tokenizer_sha256: str | None = None  # of the tokenizer that gives the ids, if known

    name: ClassVar[str] = "text"
    plural: ClassVar[str] = "texts"
    classifier: ClassVar[str] = "A text classifier"
    values: ClassVar[str] = "token ids"
    limits: ClassVar[str] = "the vocabulary"
    dtype: ClassVar[str] = "int64"
    ports: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    interfaces: ClassVar[tuple[str, ...]] = ("raw",)
    script: ClassVar[str] = "run_texts.py"
    files: ClassVar[tuple[str, ...]] = ("tokenizer.json",)
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

    @property
    def length(self) -> int:
        return self.shape[0]

    def described(self) -> str:
        return f"texts of up to {self.length} tokens from {self.vocab_size:,}"

    def description(self) -> dict[str, Any]:
        sides = {"dtype": self.dtype, "shape": ["batch", "length"], "max_length": self.length}
        return {"names": list(self.ports), **sides, "padding": PADDING, "tokenizer": self.files[0]}

    def shown(self, example: "Tensor", decode: Callable[[Sequence[int]], str] | None = None) -> Shown:
        ids = [int(number) for number in example if number != PADDING]
        return Shown(text=" ".join(map(str, ids)) if decode is None else decode(ids))

    def probes(self, count: int, seed: int = 0) -> np.ndarray:
        """Random tokens; lengths go from 1 to the longest."""
        rng = np.random.default_rng(seed)
        ids = rng.integers(1, self.vocab_size, (count, self.length))
        kept = np.linspace(1, self.length, count).round().astype(int)
        return np.where(np.arange(self.length) < kept[:, None], ids, PADDING).astype(np.int64)

    def extremes(self) -> Iterator[tuple[str, "Tensor"]]:
        """Padding alone, no padding at all, and shorter sequences."""
        import torch

        noise = torch.rand(7, *self.shape, generator=torch.Generator().manual_seed(0))
        yield "padding", torch.full((1, *self.shape), PADDING)
        ids = 1 + (noise * (self.vocab_size - 1)).long()
        yield "noise", ids
        for length in {1, (self.length + 1) // 2}:
            yield "shorter", ids[:, :length]

    def is_within(self, inputs: np.ndarray) -> bool:
        return bool(inputs.min() >= 0 and inputs.max() < self.vocab_size)

    def fault(self, examples: np.ndarray, of: str) -> str | None:
        if examples.dtype != self.dtype:
            return f"{of} examples are {examples.dtype}; token ids are {self.dtype}"
        if not self.is_within(examples):
            low, high = int(examples.min()), int(examples.max())
            return f"{of} examples hold token ids {low} to {high}; the vocabulary has {self.vocab_size}"
        return None
