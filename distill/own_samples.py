"""A student's own samples: texts that it continues by itself, in the place of a step's own texts.

Which steps have them, and each of their tokens, is drawn from the loop's generator of the epoch, so that an epoch that
is repeated after a kill repeats its samples.
"""

# B texts, T tokens, R rows of logits

from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgestill.pipeline.data.splits import UNLABELLED, Batch, OwnSamples
from edgestill.pipeline.input_kind.lm import answered, prompt_ends
from edgestill.pipeline.networks.sampling import by_chance, drawn


class Sampling(NamedTuple):
    """How a student is sampled.

    Args:
        share: of the steps that learn from its own samples, in (0, 1].
        temperature: of the softmax that tokens are drawn from.
        samples: number of texts of each prompt.
        reuse: number of steps, one after the other, that learn from the same texts.
        most: tokens that are drawn for a text at most; None: as many as the data's longest text has room for.
    """

    share: float
    temperature: float = 1.0
    samples: int = 1
    reuse: int = 1
    most: int | None = None


class Sampler:
    """Takes the place of batches by the student's samples, in as many steps as is asked."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self.begin()

    @property
    def is_always(self) -> bool:
        """True if no step learns from the data's own texts."""
        return self._sampling.share == 1

    def begin(self) -> None:
        """Begin an epoch: it keeps no text of the one before."""
        self._step = 0
        self._kept: Batch | None = None

    def __call__(self, batch: Batch, student: nn.Module, generator: torch.Generator) -> Batch:
        """Return the batch, or the student's own texts in its place, as the step's turn is."""
        turn, self._step = self._step % self._sampling.reuse, self._step + 1
        if turn == 0:
            self._kept = None
            if float(torch.rand((), generator=generator)) < self._sampling.share:
                self._kept = own_batch(batch, student, self._sampling, generator)
        return batch if self._kept is None else self._kept


def own_batch(batch: Batch, student: nn.Module, sampling: Sampling, generator: torch.Generator) -> Batch:
    """Return the batch's prompts as the student continues them; no row has a label.

    The index of each row is that of its prompt's first row in the split.
    """
    assert batch.rows is not None, "only texts with an answer at several places are continued"
    copies = torch.arange(len(batch.inputs), device=batch.inputs.device).repeat_interleave(sampling.samples)
    given = batch.inputs[copies]
    choose = by_chance(generator, sampling.temperature)
    ids, log_probs = drawn(student, given, prompt_ends(given), choose, most=sampling.most)
    rows = answered(ids).nonzero()
    text, place = rows.unbind(1)
    numbers = torch.zeros(len(batch.inputs), dtype=torch.int64, device=ids.device)
    numbers = numbers.scatter_reduce(0, batch.rows[:, 0], batch.index, "amin", include_self=False)
    return Batch(
        ids,
        torch.full_like(text, UNLABELLED),
        numbers[copies[text]],
        view=None,
        rows=rows,
        own=OwnSamples(given, copies, log_probs[text, place + 1]),
    )


def tokens_of(batch: Batch) -> Tensor:
    """Token that follows each row in its text, [R]."""
    assert batch.rows is not None
    text, place = batch.rows.unbind(1)
    return batch.inputs[text, place + 1]
