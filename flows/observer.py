"""Trackers of a run, called by its runner; one that fails is let go, with a caution."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgestill.flows.config.dotted import dotted
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.trackers import TRACKERS, Tracker
from edgestill.pipeline.trackers.base import Tracked
from edgestill.pipeline.training.state import EpochRecord

_MOST_FIGURES = 200  # of a stage


class Observer:
    """All trackers of a run; none of its methods raises for a tracker."""

    def __init__(self, configs: tuple[Any, ...], root: Path, settings: Mapping[str, Any]) -> None:
        self.cautions: list[str] = []
        self._stage, self._part, self._epoch = "", 1, 0
        self._trackers: list[Tracker] = []
        if not configs:
            return
        run = Tracked(root, root.resolve().name, dict(dotted(settings)))
        for config in configs:
            with nicety(_failed(config.name), self.cautions):
                self._trackers.append(TRACKERS[config.name](config, run))

    def begin(self, stage: str) -> None:
        """Name the stage that epochs are of from now on."""
        self._stage, self._part, self._epoch = stage, 1, 0

    def epoch(self, record: EpochRecord) -> None:
        """Tell an epoch of the stage; where epochs begin again, a further training of the stage has begun."""
        if not self._trackers:
            return
        self._part += record.epoch <= self._epoch
        self._epoch = record.epoch
        series = self._stage if self._part == 1 else f"{self._stage}/{self._part}"
        figures = record.model_dump(exclude={"epoch", "terms"}, exclude_none=True)
        terms = {f"loss/{name}": value for name, value in record.terms.items()} if len(record.terms) > 1 else {}
        told = {f"{series}/{name}": value for name, value in {**figures, **terms}.items() if math.isfinite(value)}
        self._each(lambda tracker: tracker.values(told, record.epoch))

    def end(self, stage: str, result: Frozen, sentence: str) -> None:
        """Tell a finished stage's figures and its sentence."""
        if not self._trackers:
            return
        figures = dict(_figures(result.model_dump(mode="json"), f"{stage}/"))
        told = dict(list(figures.items())[:_MOST_FIGURES])
        self._each(lambda tracker: tracker.values(told, 0))
        self._each(lambda tracker: tracker.note(stage, sentence))

    def note(self, name: str, text: str) -> None:
        """Tell a text."""
        self._each(lambda tracker: tracker.note(name, text))

    def close(self, is_finished: bool = False) -> None:
        """Let go of the trackers."""
        self._each(lambda tracker: tracker.close(is_finished))
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            failed = len(self.cautions)
            with nicety(_failed(tracker.name), self.cautions):
                call(tracker)
            if len(self.cautions) > failed:
                self._trackers.remove(tracker)


def _figures(values: Mapping[str, Any], before: str) -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of a result; lists, such as curves and trials, are no figures."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _figures(value, f"{before}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{before}{key}", float(value)


def _failed(name: str) -> str:
    return f"the tracker {name} was left out"
