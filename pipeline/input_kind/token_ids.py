"""Sequences of int64 token ids in [0, vocab_size), of which 0 is padding: what texts and prompts have in common."""

# N sequences, T tokens

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgestill.pipeline.input_kind.base import InputKind, Shown

if TYPE_CHECKING:
    from torch import Tensor

PADDING = 0  # the token id of padding


@dataclass(frozen=True)
class TokenIds(InputKind):
    """Token ids [T]; a batch may be shorter than T."""

    vocab_size: int  # number of token ids, padding included
    tokenizer_sha256: str | None = None  # of the tokenizer that gives the ids, if known

    values: ClassVar[str] = "token ids"
    limits: ClassVar[str] = "the vocabulary"
    dtype: ClassVar[str] = "int64"
    ports: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    interfaces: ClassVar[tuple[str, ...]] = ("raw",)
    files: ClassVar[tuple[str, ...]] = ("tokenizer.json",)

    @property
    def length(self) -> int:
        return self.shape[0]

    def described(self) -> str:
        return f"{self.plural} of up to {self.length} tokens from {self.vocab_size:,}"

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
