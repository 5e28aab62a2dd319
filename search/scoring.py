"""Where candidates are scored: in processes of their own, so that one that kills its process fails alone."""

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from pipeline.errors import ConfigError
from search.attempt import attempt, on_threads
from search.evaluate import Evaluator
from search.outcome import Caught, Outcome, value
from search.parallel import Function, Pool, UnloadableError, UnstartableError, can_fork, cores
from search.scorers import builds_networks
from search.space import Architecture

T = TypeVar("T")


class Workshop:
    """The processes of one search, started when first needed; a context manager, at whose end none is left.

    With "auto" and with 1 they are forked, so that they have whatever this process has. Where they cannot be, they are
    spawned; what those cannot be sent, such as a space of the script that searches, is scored in this process. With
    another number they are spawned, and what they cannot be sent is refused.

    Args:
        threads: on which each process computes; several need processes that are spawned.
    """

    def __init__(self, workers: int | Literal["auto"], threads: int = 1) -> None:
        self._size = workers if isinstance(workers, int) else cores()
        self._is_strict, self._threads = isinstance(workers, int) and workers > 1, threads
        self._scoring = self._pool(self._size)
        self._asking: list[Pool] = []  # each has a function of its own

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pool in (self._scoring, *self._asking):
            pool.__exit__(kind, error, traceback)

    def scorer(self, evaluator: Evaluator, scorer: str) -> Callable[[Sequence[Architecture]], Iterator[Outcome]]:
        """Gives what comes of an `attempt` of each candidate, in the order given."""
        if not (self._is_strict or builds_networks(scorer)):  # it runs nothing of a candidate's
            return functools.partial(map, functools.partial(attempt, evaluator, scorer))
        function = functools.partial(attempt, evaluator.portable(), scorer)
        if not self._is_strict:
            return _Elsewhere(function, self._scoring, self._threads)
        packed = _packed(function)
        if isinstance(packed, Exception):
            problem = f"search.workers: {scorer} cannot be sent to a process ({packed}); 1 needs none"
            raise ConfigError([problem])
        return lambda architectures: self._scoring.outcomes(packed, architectures)

    def each(self, function: Callable[[Architecture], Any], architectures: Sequence[Architecture]) -> Iterator[Outcome]:
        """What a `Caught` function gives for each, in the order given."""
        return _Elsewhere(Caught(function), self._scoring, self._threads)(architectures)

    def apart(self, function: Callable[[Architecture], T]) -> Callable[[Architecture], T]:
        """The same function, called in a process of its own; what goes wrong there is a CandidateError."""
        self._asking.append(self._pool(1))
        elsewhere = _Elsewhere(Caught(function), self._asking[-1], self._threads)

        def call(architecture: Architecture) -> T:
            [outcome] = elsewhere([architecture])
            found: T = value(outcome)
            return found

        return call

    def _pool(self, size: int) -> Pool:
        forks = not self._is_strict and self._threads == 1 and can_fork()
        return Pool(size, threads=self._threads, forks=forks, has_script=self._is_strict)


class _Elsewhere:
    """Asks a function in the processes of a pool, or here where they cannot have it."""

    def __init__(self, function: Function, pool: Pool, threads: int) -> None:
        self._function, self._pool, self._threads = function, pool, threads
        self._sent: Function | bytes | Exception = function if pool.forks else _packed(function)

    def __call__(self, architectures: Sequence[Architecture]) -> Iterator[Outcome]:
        done = 0
        if not isinstance(self._sent, Exception):
            try:
                for outcome in self._pool.outcomes(self._sent, architectures):
                    done += 1
                    yield outcome
            except (UnloadableError, UnstartableError) as error:
                self._sent = error
        for architecture in architectures[done:]:
            with on_threads(self._threads):
                outcome = self._function(architecture)
            yield outcome


def _packed(function: Function) -> bytes | Exception:
    """The function as bytes, or why it cannot be sent."""
    try:
        return pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return error
