"""Conditions of scoring, equal for all candidates, and its means, which change only the time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from torch import nn

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.frozen import Frozen
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.outcome import Caught, Outcome
from edgestill.search.space import Architecture

P = TypeVar("P", bound=Frozen)

Each = Callable[[Callable[[Architecture], Any], Sequence[Architecture]], Iterator[Outcome]]


class Keep(Protocol):
    """Interface to kept results: returns the one of this content name and type, or computes and keeps it."""

    def __call__(self, key: str, kind: type[P], compute: Callable[[], P]) -> P: ...


def compute_anew(key: str, kind: type[P], compute: Callable[[], P]) -> P:
    """Keep nothing."""
    return compute()


def each_here(function: Callable[[Architecture], Any], architectures: Sequence[Architecture]) -> Iterator[Outcome]:
    """Yield a function's outcome for each architecture, computed in this process."""
    return map(Caught(function), architectures)


@dataclass(frozen=True)
class Conditions:
    """Conditions of scoring, equal for all candidates."""

    batch: Batch
    teacher: nn.Module | None  # re-initialised in place if not `trained`
    seed: int
    draws: int = 1  # of each candidate's weights
    trained: bool = False  # the teacher's weights are used as they are
    comparable: bool = False  # all widths of the space decide what is compared with the teacher, not each student's own
    guard: bool = False  # refuse candidates with the same last features for every input
    configs: Mapping[str, Frozen] = field(default_factory=dict)  # settings by scorer; default: the scorer's own


@dataclass(frozen=True)
class Means:
    """Means of scoring; they change its time and no score."""

    costs: CostTable | None = None  # shared between the searches of one space
    keep: Keep = compute_anew  # for what scorers with `parts` prepare
    each: Each = each_here  # yields a function's outcome for each architecture of the sample


ALL_HERE = Means()
