"""Contract of an acquisition function: it chooses which examples of a pool to ask about next."""

# N examples of the pool, L labelled ones, K classes, D embedding width

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from edgestill.distill.methods.facts import Evidence


class Outlook(NamedTuple):
    """The student's view of the pool and of what it has learnt from, as float64 on the CPU."""

    probabilities: Tensor  # [N, K]
    embedding: Tensor  # [N, D]
    labelled_probabilities: Tensor  # [L, K], of examples with a label or an answer
    labelled_embedding: Tensor  # [L, D]
    error_rate: float = 0.0  # share of the first labels that the teacher gets wrong; read with `reads_errors`


class Acquisition(ABC):
    """Base of the acquisition functions."""

    name: ClassVar[str]
    paper: ClassVar[str]  # authors, year, arXiv id
    evidence: ClassVar[Evidence]
    reads_errors: ClassVar[bool] = False

    @abstractmethod
    def choose(self, outlook: Outlook, count: int, generator: torch.Generator) -> Tensor:
        """Choose `count` positions of the pool, [count] int64, none twice; `count` is at most N.

        Of equal examples the first is taken. Draws come from the generator alone.
        """


def largest(scores: Tensor, count: int) -> Tensor:
    """Positions of the largest scores [N], the largest first; of equal ones the first."""
    return scores.sort(descending=True, stable=True).indices[:count]


def margins(probabilities: Tensor) -> Tensor:
    """Distance [N] between the two largest probabilities of [N, K]."""
    first, second = probabilities.topk(2, dim=1).values.unbind(1)
    return first - second
