"""What a scorer is given and what it gives."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from pipeline.cost import Cost
from pipeline.data import Batch
from pipeline.network import Initialisation, View
from search.observe import Graph

if TYPE_CHECKING:
    from search.scorers.ensemble import Calibration


@dataclass(frozen=True)
class ScoringContext:
    """What all candidates of a search share."""

    batch: Batch
    teacher: View | None  # the randomly initialised (or trained) teacher's one look at the batch
    teacher_dims: frozenset[int]  # embedding widths that every scored student has; empty: judge each by its own
    seed: int
    teacher_blocks: tuple[Tensor, ...] = ()  # as a student's; where a scorer `needs_blocks`
    calibration: "Calibration | None" = None  # of the ensemble's parts in the space at hand


@dataclass(frozen=True)
class Student:
    """One candidate in one draw of its weights; a network is run once for all scorers of an initialisation."""

    key: str
    count_cost: Callable[[], Cost]
    view: View | None = None  # None for scorers that need no network
    codes: tuple[
        Tensor, ...
    ] = ()  # which units of every activation are on, [B, units] bool; where a scorer `needs_codes`
    blocks: tuple[Tensor, ...] = ()  # into the first block, then out of each, as features; `needs_blocks`
    graph: Graph | None = None  # the same pass to differentiate; where a scorer `needs_graph`
    network: nn.Module | None = None  # to be left as it is, so that no scorer sees what another did to it
    seed: int = 0  # of this draw of the weights; a scorer with chance of its own derives its seed from it
    parts: Mapping[str, float] = field(default_factory=dict)  # what the scorers named in `parts` gave; NaN: none

    @property
    def cost(self) -> Cost:
        """Parameters and FLOPs, counted when asked for."""
        return self.count_cost()


class Scorer(ABC):
    """Made once a search, so that the teacher's side is computed once; then called on each student."""

    name: ClassVar[str]
    initialisation: ClassVar[Initialisation | None] = None  # None: no network is built for this scorer
    needs_teacher: ClassVar[bool] = False
    needs_codes: ClassVar[bool] = False
    needs_blocks: ClassVar[bool] = False
    needs_graph: ClassVar[bool] = False
    parts: ClassVar[tuple[str, ...]] = ()  # other scorers that are asked first; this one sees their scores alone
    images: ClassVar[int | None] = None  # of the batch, that the parts are scored on; None: all

    def __init__(self, context: ScoringContext) -> None:
        self.context = context

    @abstractmethod
    def __call__(self, student: Student) -> float:
        """A score that depends on the student and the context alone; NaN or infinite means: no score."""
