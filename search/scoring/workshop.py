"""Scoring of candidates in processes of their own: one that kills its process fails alone."""

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from edgestill.pipeline.device import on_threads
from edgestill.pipeline.engines import LOCAL, Answer
from edgestill.pipeline.engines.forking import can_fork
from edgestill.pipeline.engines.pool import Function, Pool, UnloadableError, UnstartableError, cores
from edgestill.pipeline.engines.workers import UNSENDABLE, Workers
from edgestill.pipeline.errors import ConfigError
from edgestill.search.scorers import builds_networks
from edgestill.search.scoring.attempt import attempt
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.scoring.outcome import Caught, Outcome, value
from edgestill.search.space import Architecture

T = TypeVar("T")


class Workshop:
    """Processes of one search, started when first needed; a context manager, without processes left at its end.

    With `workers` "auto" or 1 they are forked, and so have all objects of this process. If forking is impossible they
    are spawned; a function impossible to send to them, such as one with a space of the searching script, then runs in
    this process. With another number they are spawned, and a scorer impossible to send is refused.

    On a cluster candidates are scored by its workers, and a scorer impossible to send is refused. Costs, which take
    milliseconds, are counted in spawned processes here.

    Args:
        threads: number of threads of each process; more than one needs spawned processes.
        engine: configuration of `pipeline.engines`.
    """

    def __init__(self, workers: int | Literal["auto"], threads: int = 1, engine: Any = LOCAL) -> None:
        self._size = workers if isinstance(workers, int) else cores()
        self._is_strict = engine != LOCAL or (isinstance(workers, int) and workers > 1)
        self._threads = threads
        self._workers = Workers(engine, self._size, threads)  # used where a scorer must be sent
        self._scoring = self._pool(self._size)
        self._asking: list[Pool] = []  # each has a function of its own

    def __enter__(self) -> Self:
        self._workers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._workers.__exit__(kind, error, traceback)
        for pool in (self._scoring, *self._asking):
            pool.__exit__(kind, error, traceback)

    def scorer(self, evaluator: Evaluator, scorer: str) -> Callable[[Sequence[Architecture]], Iterator[Outcome]]:
        """Return a function yielding the outcome of an `attempt` of each candidate, in the order given."""
        if not (self._is_strict or builds_networks(scorer)):  # such a scorer runs no network
            return functools.partial(map, functools.partial(attempt, evaluator, scorer))
        function = functools.partial(attempt, evaluator.portable(), scorer)
        if not self._is_strict:
            return _Elsewhere(function, self._scoring, self._threads)
        try:
            self._workers.require_sendable(function)
        except UNSENDABLE as error:
            way_out = "1 needs none" if self._workers.cluster is None else "device.engine: local needs none"
            raise ConfigError([f"search.workers: {scorer} cannot be sent to a process ({error}); {way_out}"]) from None
        return functools.partial(self._sent, function)

    def each(self, function: Callable[[Architecture], Any], architectures: Sequence[Architecture]) -> Iterator[Outcome]:
        """Yield the outcome of a `Caught` function for each architecture, in the order given."""
        caught = Caught(function)
        if self._workers.cluster is not None and not isinstance(_packed(caught), Exception):
            return self._sent(caught, architectures)
        return _Elsewhere(caught, self._scoring, self._threads)(architectures)

    def apart(self, function: Callable[[Architecture], T]) -> Callable[[Architecture], T]:
        """Wrap a function so that it runs in a process of its own; a failure there raises CandidateError."""
        self._asking.append(self._pool(1))
        elsewhere = _Elsewhere(Caught(function), self._asking[-1], self._threads)

        def call(architecture: Architecture) -> T:
            [outcome] = elsewhere([architecture])
            found: T = value(outcome)
            return found

        return call

    def _sent(self, function: Function, architectures: Sequence[Architecture]) -> Iterator[Outcome]:
        """Yield each candidate's outcome, with the number of a cluster's workers that were lost with it, if any."""
        is_told = self._workers.cluster is not None
        return (_outcome(answer, is_told) for answer in self._workers.answers(function, architectures))

    def _pool(self, size: int) -> Pool:
        forks = not self._is_strict and self._threads == 1 and can_fork()
        return Pool(size, threads=self._threads, forks=forks, has_script=self._is_strict)


class _Elsewhere:
    """Function run in the processes of a pool, or in this one if it cannot be sent to them."""

    def __init__(self, function: Function, pool: Pool, threads: int) -> None:
        self._function, self._pool, self._threads = function, pool, threads
        self._sent: Function | bytes | Exception = function if pool.forks else _packed(function)

    def __call__(self, architectures: Sequence[Architecture]) -> Iterator[Outcome]:
        done = 0
        if not isinstance(self._sent, Exception):
            try:
                for answer in self._pool.answers(self._sent, architectures):
                    done += 1
                    yield _outcome(answer)
            except (UnloadableError, UnstartableError) as error:
                self._sent = error
        for architecture in architectures[done:]:
            with on_threads(self._threads):
                outcome = self._function(architecture)
            yield outcome


def _outcome(answer: Answer, is_retry_told: bool = False) -> Outcome:
    outcome: Outcome = {"failure": answer.lost, "type": "process_died"} if answer.lost else answer.value
    return {**outcome, "retried": answer.retried} if is_retry_told and answer.retried else outcome


def _packed(function: Function) -> bytes | Exception:
    """Return the pickled function, or the error if it cannot be pickled."""
    try:
        return pickle.dumps(function)
    except UNSENDABLE as error:
        return error
