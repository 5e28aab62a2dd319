"""Contract of a tracker: an observer that tells a run's figures to another program."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgestill.pipeline.frozen import Frozen


@dataclass(frozen=True)
class Tracked:
    """The run that is tracked."""

    root: Path  # its folder
    name: str  # of its folder, by which a resumed run is known again
    settings: Mapping[str, str]  # the configuration, by dotted key


class Tracker(ABC):
    """A tracker of one run. Any of its methods may fail: the run then goes on without it, with a caution.

    A run that is resumed makes its tracker anew, and repeats stages that were done before.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Frozen]]  # with `name`, valid with its defaults

    def __init__(self, config: Any, run: Tracked) -> None:
        """Begin, or go on with a run that was interrupted; tell its settings.

        Raises:
            MissingDependencyError: the tracker's library is not installed.
        """
        self.config, self.run = config, run

    @abstractmethod
    def values(self, values: Mapping[str, float], step: int) -> None:
        """Tell figures of an epoch, or with step 0 of a finished stage; names are `series/figure`."""

    @abstractmethod
    def note(self, name: str, text: str) -> None:
        """Tell a text, such as a stage's sentence or the bundle's path."""

    def close(self, is_finished: bool) -> None:
        """Let go of the tracker; an unfinished run may be resumed."""
