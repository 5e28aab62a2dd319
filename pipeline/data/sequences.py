"""Splits of a language task: whole texts to learn from, and prompts with one answer each to be judged on.

A training batch is one forward pass over whole texts, with a row of logits at each place of an answer. Elsewhere a
place is an example of its own, the text up to it and the token that follows, so that figures, files and reports treat
a language model as a classifier of the next token.
"""

# N texts, T tokens, B texts of a batch, R places

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from edgestill.pipeline.data.datasets.base import Examples, LabelledTexts
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import START, answered

MOST_PLACES = 16  # of a text that are judged, evenly spread


@dataclass(frozen=True)
class Sequences(ImageSplit):
    """Whole texts [N, T]; a batch has a row for each token of their answers, numbered through the split."""

    rejected: Tensor | None = None  # [N, T] the same prompts with worse answers; None: there are none

    @cached_property
    def _first_rows(self) -> Tensor:
        """Number of each text's first row, [N]."""
        assert isinstance(self.images, Tensor)
        counts = answered(self.images).sum(1)
        return counts.cumsum(0) - counts

    @property
    def answers(self) -> int:
        assert isinstance(self.images, Tensor)
        return int(answered(self.images).sum())

    def batch_of(self, stored: Tensor, index: Tensor, device: torch.device | None = None) -> Batch:
        ids = stored.to(device)
        found = answered(ids)
        rows = found.nonzero()
        numbers = self._first_rows[index].to(ids.device)[:, None] + found.cumsum(1) - 1
        targets = ids[:, 1:][found]
        return Batch(ids, targets, numbers[found], rows=rows)

    def texts_of(self, numbers: Tensor) -> Tensor:
        """Return the text of each row, by its number, each text once, in the order of the rows."""
        firsts = self._first_rows.to(numbers.device)
        texts: Tensor = torch.searchsorted(firsts, numbers, right=True) - 1
        return texts.unique_consecutive()  # type: ignore[no-untyped-call,no-any-return]

    def prompts(self) -> Tensor:
        """Return the texts up to START, padded behind, [N, T]."""
        assert isinstance(self.images, Tensor)
        begun = (self.images == START).cumsum(1)
        return torch.where(begun - (self.images == START).long() == 0, self.images, PADDING)

    def prompted(self) -> Tensor:
        """True of the texts with a prompt before START, [N]."""
        assert isinstance(self.images, Tensor)
        return self.images[:, 0] != START

    def select(self, index: Tensor) -> Self:
        kept = None if self.rejected is None else self.rejected[index]
        return replace(super().select(index), rejected=kept)

    def to(self, device: torch.device) -> Self:
        kept = None if self.rejected is None else self.rejected.to(device)
        return replace(super().to(device), rejected=kept)

    def singly(self) -> ImageSplit:
        return prompts_of(self)


@dataclass(frozen=True)
class PromptSplit(ImageSplit):
    """Texts up to a place of their answers, and the token that follows each."""

    texts: Tensor | None = None  # [N, T] that the prompts were cut from
    places: Tensor | None = None  # [R, 2] text and place of each prompt's last token

    def select(self, index: Tensor) -> Self:
        assert self.places is not None
        return replace(super().select(index), places=self.places[index])

    def to(self, device: torch.device) -> Self:
        assert self.texts is not None
        assert self.places is not None
        return replace(super().to(device), texts=self.texts.to(device), places=self.places.to(device))

    def passes(self, size: int, device: torch.device | None = None) -> Iterator[Batch]:
        """Yield whole texts with a row for each prompt: one pass a text."""
        assert self.texts is not None
        assert self.places is not None
        order = self.places[:, 0].argsort(stable=True)
        texts, place = self.places[order].unbind(1)
        chosen, text = texts.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        for start in range(0, len(chosen), size):
            mine = (text >= start) & (text < start + size)
            rows = torch.stack([text[mine] - start, place[mine]], 1)
            ids = self.texts[chosen[start : start + size]]
            index = order[mine]
            yield Batch(ids.to(device), self.targets[index].to(device), index.to(device), rows=rows.to(device))


def batch_of_texts(texts: Tensor) -> Batch:
    """Make the batch of whole texts [B, T] that are in no split: what is kept of the split's is not of them."""
    split = Sequences(texts, torch.zeros(len(texts), dtype=torch.int64, device=texts.device), "train")
    return split.batch(torch.arange(len(texts), device=texts.device), texts.device)._replace(view=None)


def split_of_language(split: ImageSplit) -> ImageSplit:
    """Return whole texts for training, prompts for every other role."""
    if split.role == "train":
        return Sequences(split.images, split.targets, split.role, split.ids)
    return prompts_of(split)


def with_rejected(train: ImageSplit, examples: Examples, index: np.ndarray, coder: Coder | None) -> ImageSplit:
    """Put the texts with worse answers beside the chosen texts of the training split, where there are any."""
    if not isinstance(train, Sequences) or not isinstance(examples, LabelledTexts) or not examples.rejected:
        return train
    assert coder is not None
    return replace(train, rejected=torch.from_numpy(coder.encode([examples.rejected[n] for n in index])))


def prompts_of(split: ImageSplit, most: int = MOST_PLACES) -> PromptSplit:
    """Cut each text at the places of its answer, at `most` of them."""
    assert isinstance(split.images, Tensor)
    ids = split.images
    places = torch.cat([_spread(row, number, most) for number, row in enumerate(answered(ids))])
    text, place = places.unbind(1)
    prompts = torch.where(torch.arange(ids.shape[1]) <= place[:, None], ids[text], PADDING)
    names = split.ids
    known = None if names is None else np.array([f"{names[n]}@{t}" for n, t in places.tolist()])
    return PromptSplit(prompts, ids[text, place + 1], split.role, known, texts=ids, places=places)


def _spread(found: Tensor, number: int, most: int) -> Tensor:
    """Places [R, 2] of a text, by its number, evenly spread where there are more than `most`."""
    (places,) = found.nonzero(as_tuple=True)
    if len(places) > most:
        places = places[torch.linspace(0, len(places) - 1, most).round().long()]
    return torch.stack([torch.full_like(places, number), places], 1)
