"""Parts of trials' trainings, as the study asks for them and is told of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Stretch(NamedTuple):
    """A part of a trial's training that is wanted."""

    trial: int
    config: Any  # the trial's; a DistillConfig
    until: int  # number of epochs after which it may pause


class Reached(NamedTuple):
    """A training so far."""

    scores: tuple[float, ...]  # on validation, of each epoch
    value: float | None  # its best, at its end


# Yields a function for each stretch, in order, that returns what was reached or raises the trial's failure.
TrainAtOnce = Callable[[Sequence[Stretch]], Iterator[Callable[[], Reached]]]
