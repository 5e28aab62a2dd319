"""Interface of scorers: their context, their input, their settings and their base class.

A scorer scores one candidate alone. It overrides the hooks it needs: `check` and `notes` before a search, `prepare`
if it has `parts`, and `fitness` if it ranks a population by more than its own score.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.networks.network import Initialisation, View
from edgestill.search.scoring.observe import Graph
from edgestill.search.space import SearchSpace


@dataclass(frozen=True)
class ScoringContext:
    """Inputs shared by all candidates of a search."""

    batch: Batch
    teacher: View | None  # of the randomly initialised (or trained) teacher, run once on the batch
    teacher_dims: frozenset[int]  # embedding widths that every scored student has; empty: judge each by its own
    seed: int
    teacher_blocks: tuple[Tensor, ...] = ()  # as `Student.blocks`; if a scorer `needs_blocks`
    prepared: Frozen | None = None  # of `Scorer.prepare`


@dataclass(frozen=True)
class Student:
    """One candidate with one draw of its weights; its network runs once for all scorers of an initialisation."""

    key: str
    count_cost: Callable[[], Cost]
    view: View | None = None  # None for scorers that need no network
    codes: tuple[
        Tensor, ...
    ] = ()  # units of each activation that are on, one [B, units] bool each; if a scorer `needs_codes`
    blocks: tuple[Tensor, ...] = ()  # input of the first block, then each output, as features; if `needs_blocks`
    graph: Graph | None = None  # the same pass to differentiate; if a scorer `needs_graph`
    network: nn.Module | None = None  # not to be changed, since the next scorer uses it too
    seed: int = 0  # of this draw of the weights; a scorer that draws at random derives its seed from it
    parts: Mapping[str, float] = field(default_factory=dict)  # scores of the scorers in `Scorer.parts`; NaN: none

    @property
    def cost(self) -> Cost:
        """Parameters and FLOPs, counted when asked for."""
        return self.count_cost()


class Scorer(ABC):
    """Base of scorers: made once for a search, to compute the teacher's side once, then called on each student."""

    name: ClassVar[str]
    Config: ClassVar[type[Frozen]] = Frozen  # its settings, each with a default
    initialisation: ClassVar[Initialisation | None] = None  # None: no network is built for this scorer
    needs_teacher: ClassVar[bool] = False
    needs_codes: ClassVar[bool] = False
    needs_blocks: ClassVar[bool] = False
    needs_graph: ClassVar[bool] = False
    beside: ClassVar[tuple[str, ...]] = ()  # other scorers of each candidate in a search, for `fitness`
    parts: ClassVar[tuple[str, ...]] = ()  # other scorers, run first; this one sees only their scores
    images: ClassVar[int | None] = None  # number of the batch's images for scoring the parts; None: all
    prepares: ClassVar[type[Frozen] | None] = None  # type of what `prepare` returns; None: no sample is scored
    kept_as: ClassVar[str] = ""  # with `prepares`: name and version of that in the cache; default: `name`

    def __init__(self, context: ScoringContext, config: Any = None) -> None:
        self.context = context
        self.config = self.Config() if config is None else config

    @abstractmethod
    def __call__(self, student: Student) -> float:
        """Score a student, from the student and the context alone; NaN or infinite means: no score."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Parts without a score in this space, left out for all its students."""
        return ()

    @classmethod
    def check(cls, space: SearchSpace, teacher: nn.Module) -> None:
        """Refuse a space whose students cannot be scored beside this teacher. Runs before a search by this scorer.

        Raises:
            ConfigError: the students cannot be scored.
        """

    @classmethod
    def notes(cls, space: SearchSpace, teacher: nn.Module) -> tuple[str, ...]:
        """Notes for the search result on how this space's students are scored beside this teacher."""
        return ()

    @classmethod
    def prepare(cls, sample: Mapping[str, Sequence[float]]) -> Frozen:
        """With `prepares`: learn from each part's scores of a sample of the space, NaN for no score.

        Runs once for a space, a batch and a teacher; the result is kept between runs.
        """
        raise NotImplementedError

    @classmethod
    def fitness(cls, config: Any, scores: Sequence[Mapping[str, float]]) -> list[float]:
        """Values for selection, of a whole population's scores by scorer; default: each candidate's own score."""
        return [candidate[cls.name] for candidate in scores]

    @classmethod
    def fitness_name(cls, config: Any) -> str:
        """Name of these values in a chart; default: the scorer's."""
        return cls.name
