"""Where candidates are scored: in this process, or in several, which gives the same and differs in time."""

import copy
import pickle
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Literal, Self

from pipeline.errors import ConfigError
from search.attempt import Outcome, attempt
from search.evaluate import CostTable, Evaluator
from search.parallel import Pool, cores
from search.space import Architecture

_START_S = 3.0  # a pool of two on a 2-core machine answers after 1.4 s when idle; starting one must save more
_MESSAGE_S = 0.002  # a candidate faster than this is not worth sending
_SAMPLE = 4  # candidates timed before "auto" decides


class Workshop:
    """The processes of one search, started when first needed; a context manager, at whose end none is left."""

    def __init__(self, workers: int | Literal["auto"]) -> None:
        self.is_auto = workers == "auto"
        self.size = cores() if isinstance(workers, str) else workers
        self._pool: Pool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.__exit__(kind, error, traceback)

    @property
    def is_open(self) -> bool:
        return self._pool is not None

    def pool(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(self.size)
        return self._pool


class CandidateScorer:
    """Scores candidates by one evaluator, wherever the workshop has them scored.

    With "auto" that is this process until the time that the first candidates took says that processes will save more
    than their start costs. With a number above 1 it is processes from the first candidate on: then a candidate that
    kills its process costs only itself.
    """

    def __init__(self, workshop: Workshop, evaluator: Evaluator, scorer: str, plain_costs: CostTable) -> None:
        self._workshop, self._evaluator, self._scorer = workshop, evaluator, scorer
        self._plain_costs = plain_costs
        self._payload: bytes | None = None
        self._is_portable = True
        self._seconds: list[float] = []

    def outcomes(self, architectures: Sequence[Architecture], expected: int) -> Iterator[Outcome]:
        """Each candidate's outcome in the order given; `expected` more, these included, are still to come."""
        for position, architecture in enumerate(architectures):
            if self._goes_out(expected - position):
                payload = self._packed()
                if payload is not None:
                    yield from self._workshop.pool().outcomes(payload, architectures[position:])
                    return
            start = time.perf_counter()
            yield attempt(self._evaluator, self._scorer, architecture)
            self._seconds.append(time.perf_counter() - start)

    def _goes_out(self, expected: int) -> bool:
        size = self._workshop.size
        if size == 1 or not self._is_portable:
            return False
        if not self._workshop.is_auto:
            return True
        if len(self._seconds) < _SAMPLE:
            return False
        seconds = sorted(self._seconds)[len(self._seconds) // 2]  # the first is slow
        saved = expected * seconds * (1 - 1 / size)
        return seconds > _MESSAGE_S and (self._workshop.is_open or saved > _START_S)

    def _packed(self) -> bytes | None:
        """The evaluator as bytes, with a table of costs that only counts; None where "auto" cannot pack it."""
        if self._payload is None:
            try:
                self._payload = pickle.dumps((_portable(self._evaluator, self._plain_costs), self._scorer))
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                if not self._workshop.is_auto:
                    raise ConfigError(
                        [f"search.workers: {self._scorer} cannot be sent to a process ({error}); 1 needs none"]
                    ) from None
                self._is_portable = False
        return self._payload


def _portable(evaluator: Evaluator, costs: CostTable) -> Evaluator:
    """The same evaluator, and those of an ensemble's parts, with another table of costs."""
    portable = copy.copy(evaluator)
    portable.cost = costs
    portable.wholes = [(whole, _portable(parts, costs)) for whole, parts in evaluator.wholes]
    return portable
