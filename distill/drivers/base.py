"""Contract of a driver: an outer loop of trainings, in each of which any recipe of methods runs.

A driver asks for lessons. A lesson trains a fresh student by a teacher; the stage that runs the driver keeps each
lesson's state in a file of its own, so that a killed run goes on within the lesson and repeats none.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from edgestill.distill.distilled import Distilled
from edgestill.distill.own_samples import Sampling
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.teachers.teacher import PARTS, Part


class DriverConfig(Frozen):
    """A driver's settings."""

    name: str = ""  # each driver's own, as a Literal

    @property
    def trainings(self) -> int:
        """Number of trainings, for an estimate of the time."""
        return 1

    @property
    def gives(self) -> frozenset[Part]:
        """Parts of the teacher that methods can read."""
        return PARTS

    @property
    def goes_on(self) -> bool:
        """True if later stages can train by the teacher and the examples that its student had."""
        return True

    @property
    def can_be_repeated(self) -> bool:
        """True if one more training by another seed is a repetition of what its student had, for baselines."""
        return self.goes_on

    @property
    def sampling(self) -> Sampling | None:
        """Samples of the student's own that its trainings learn from, tuning's too; None: the data alone."""
        return None

    @property
    def hides(self) -> tuple[Any, ...]:
        """Settings by which `Driver.at_start` changes the data, the inputs of every stage; () if it does not."""
        return ()


@dataclass(frozen=True)
class Lesson:
    """One training of a fresh student.

    Args:
        name: of the lesson's files and seed; "" for that of a run without a driver.
        teacher: network in the teacher's place; None: the run's teacher.
        methods: settings of methods listed beside the configured ones.
        instead: settings of the methods listed in the place of the configured ones; None: the configured ones.
        splits: to train on; None: the run's.
        draw: number of the draw of the student's first weights; None: that of the lesson.
    """

    name: str = ""
    teacher: nn.Module | None = None
    methods: tuple[Mapping[str, Any], ...] = ()
    instead: tuple[Mapping[str, Any], ...] | None = field(default=None)
    splits: Splits | None = None
    draw: int | None = None


Learn = Callable[[Lesson], Distilled]


class Log(Protocol):
    """Entries that outlive this process, in order; `entries` are those of earlier ones."""

    @property
    def entries(self) -> list[dict[str, Any]]: ...
    def append(self, entry: Mapping[str, Any], *, durable: bool = False) -> None: ...


class Logs(Protocol):
    """The logs of a run by name. A `lasting` one stays when settings of the distillation change."""

    def __call__(self, name: str, *, lasting: bool = False) -> Log: ...


class _Memory:
    """A log of a driver outside of a run."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def append(self, entry: Mapping[str, Any], *, durable: bool = False) -> None:
        self.entries.append(dict(entry))


def in_memory() -> Logs:
    """Make logs that end with this process."""
    kept: dict[str, Log] = {}

    def log(name: str, *, lasting: bool = False) -> Log:
        return kept.setdefault(name, _Memory())

    return log


@dataclass(frozen=True)
class Room:
    """Surroundings of a driver that trains networks beside its lessons.

    Args:
        seed: from names to a seed.
        students: from a number, and True for different architectures, to so many fresh students.
        saved: the state that an interrupted driver goes on from; None: there is none.
        save: keeps a state for that.
        tell: says what the run did without, a sentence.
        tick: says how far it is: steps done, steps in all, a few words.
    """

    device: torch.device
    seed: Callable[..., int]
    students: Callable[[int, bool], list[nn.Module]]
    saved: Callable[[], dict[str, Any] | None] = lambda: None
    save: Callable[[dict[str, Any]], None] = lambda state: None
    tell: Callable[[str], None] = lambda sentence: None
    tick: Callable[[int, int, str], None] = lambda done, steps, words: None


class Driver(ABC):
    """Base of the drivers."""

    name: ClassVar[str]
    paper: ClassVar[str]  # authors, year, arXiv id
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text"})  # of input
    Config: ClassVar[type[DriverConfig]]
    room: Room  # set before `run`, for drivers that need more than lessons

    def __init__(self, config: Any, logs: Logs | None = None, seed: int = 0) -> None:
        self.config: Any = config
        self.logs, self.seed = in_memory() if logs is None else logs, seed

    def at_start(self, splits: Splits) -> Splits:
        """Splits as all stages see them but the driver's own, which is given the whole; default: the whole.

        Raises:
            ConfigError: they do not fit the driver.
        """
        return splits

    @abstractmethod
    def run(self, learn: Learn, teacher: nn.Module, splits: Splits) -> Distilled:
        """Run the lessons; return the student that ships, with the driver's measures beside those of its methods."""

    def afterwards(self, splits: Splits) -> Lesson:
        """Teacher and splits of trainings after the driver's: fine-tuning, baselines. `splits` is the whole."""
        return Lesson()
