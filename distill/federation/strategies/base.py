"""Contract of a federated strategy: the pool examples that a client answers, and the mixture of all answers."""

# M examples of the public pool, S of them answered, N own examples of a client, F numbers an example, K classes

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from edgestill.distill.methods.facts import Evidence
from edgestill.pipeline.frozen import Frozen


class Answers(NamedTuple):
    """Answers to some of the pool."""

    index: Tensor  # type: ignore[assignment]  # [S] int64, positions in the pool, each once
    logits: Tensor  # [S, K] float32


class Known(NamedTuple):
    """A client's view of its own data and of the pool, for it to tell which of the pool it can answer."""

    own: Tensor  # [N, F]
    targets: Tensor  # [N] int64
    pool: Tensor  # [M, F]


class Fused(NamedTuple):
    """A round's mixture: the answers that each client is taught next, and those that the shipped student is taught."""

    taught: Mapping[int, Answers]  # by client
    shipped: Answers


class StrategyConfig(Frozen):
    """A strategy's settings."""

    name: str = ""  # each strategy's own, as a Literal


class Strategy(ABC):
    """Base of the strategies. The defaults answer the whole pool."""

    name: ClassVar[str]
    paper: ClassVar[str]  # authors, year, arXiv id
    evidence: ClassVar[Evidence]
    Config: ClassVar[type[StrategyConfig]]
    teaches: ClassVar[bool] = True  # False: the clients are taught nothing, and answer in the last round alone

    def __init__(self, config: Any = None) -> None:
        self.config: Any = self.Config() if config is None else config

    @property
    def reads(self) -> Literal["", "pixels", "embedding"]:
        """Part of an example that `answered` reads; "": nothing, and each client answers the whole pool."""
        return ""

    def answered(self, known: Known, seed: int) -> Tensor:
        """Return the mask [M] of the pool's examples that the client answers."""
        return torch.ones(len(known.pool), dtype=torch.bool)

    @abstractmethod
    def fuse(self, answers: Mapping[int, Answers], size: int) -> Fused:
        """Mix the answers of the clients to a pool of `size` examples; there is at least one answer."""


def mean_logits(answers: Mapping[int, Answers], size: int) -> Answers:
    """Mean of the logits over the clients that answered an example; one that nobody answered is left out."""
    some = next(iter(answers.values())).logits
    total, count = torch.zeros(size, some.shape[1]), torch.zeros(size)
    for client in sorted(answers):  # a sum in one order, whoever answered first
        index, logits = answers[client]
        total.index_add_(0, index, logits.float())
        count.index_add_(0, index, torch.ones(len(index)))
    index = count.nonzero().squeeze(1)
    return Answers(index, total[index] / count[index, None])
