"""Contract of clusters: a function is sent once, and its answers come back in the order of the items.

An answer depends on the function and the item alone. So the kind of cluster, the number of its workers and their order
of finishing change only the time. A worker that is lost costs its own item, which is tried again on another.
"""

import functools
import pickle
import platform
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch

from edgestill.pipeline.errors import FailedError, UserError
from edgestill.pipeline.free_memory import keep_freed_memory

PATIENCE_S = 120.0  # wait for the first worker, and for another when all were lost
LOOK_S = 1.0  # between two looks at how many workers there are
_PROTOCOL = 5


class Answer(NamedTuple):
    value: Any  # of the function; None if `lost`
    retried: int  # number of times that a worker was lost with this item
    lost: str = ""  # how the item was given up, as a sentence's end; empty if it was answered


class LostError(Exception):
    """Loss of a worker with the item that it had; `str()` says how."""


class Cluster(ABC):
    """Workers of a cluster; a context manager.

    Args:
        workers: number of worker processes of a cluster that is started for this process alone.
    """

    title: ClassVar[str]
    tries_again: ClassVar[int]  # times that this module submits a lost item anew; 0 if the cluster does so itself

    def __init__(self, config: Any, workers: int) -> None:
        self.config, self._workers = config, workers
        self._looked, self._count, self._seen = -LOOK_S, 0, 0.0
        self._packed, self._held = b"", None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Connect to the cluster, or start one.

        Raises:
            MissingDependencyError: its library is not installed.
            FailedError: it does not answer.
        """

    @abstractmethod
    def stop(self) -> None:
        """Leave the cluster; end it if it was started for this process. Does nothing if none was started."""

    @abstractmethod
    def threads(self) -> int:
        """Number of items that the workers can take at once."""

    @abstractmethod
    def hold(self, packed: bytes) -> Any:
        """Give the workers a function of `packed`; return their name for it."""

    @abstractmethod
    def submit(self, held: Any, item: Any) -> Any:
        """Submit an item and return a hashable handle."""

    @abstractmethod
    def finished(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Return the handles that are done, after LOOK_S at the latest."""

    @abstractmethod
    def value(self, handle: Any) -> Answer:
        """Return the answer.

        Raises:
            LostError: its worker was lost, and the cluster does not try again.
            FailedError: the cluster itself failed.
        """

    def answers(self, packed: bytes, items: Sequence[Any]) -> Iterator[Answer]:
        """Yield the answer to each item, in the order given.

        As many items are under way as the workers have threads, so that a lost worker costs no item that waits.

        Raises:
            UserError: raised by the function.
            FailedError: there was no worker for PATIENCE_S, or the cluster failed.
        """
        if packed != self._packed:
            self._packed, self._held = packed, self.hold(packed)
        held, waiting = self._held, deque(range(len(items)))
        running: dict[Any, int] = {}
        losses: Counter[int] = Counter()
        done: dict[int, Answer] = {}
        self._seen = time.monotonic()
        for position in range(len(items)):
            while position not in done:
                while waiting and len(running) < self._capacity():
                    chosen = waiting.popleft()
                    running[self.submit(held, items[chosen])] = chosen
                for handle in self.finished(list(running)) if running else self._none_yet():
                    found = running.pop(handle)
                    try:
                        answer = self.value(handle)
                    except LostError as error:
                        losses[found] += 1
                        if losses[found] <= self.tries_again:
                            waiting.appendleft(found)
                            continue
                        answer = Answer(None, losses[found] - 1, str(error))
                    if isinstance(answer.value, UserError):
                        raise answer.value
                    done[found] = answer._replace(retried=answer.retried + losses[found] * (not answer.lost))
            yield done.pop(position)

    def _capacity(self) -> int:
        """Return `threads`, asked for once a LOOK_S.

        Raises:
            FailedError: there was none for PATIENCE_S.
        """
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked, self._count = now, self.threads()
        if self._count:
            self._seen = now
        elif now - self._seen > PATIENCE_S:
            raise FailedError(
                f"{self.title} has had no worker for {PATIENCE_S:.0f} s; start some, then go on with `edgestill resume`"
            )
        return self._count

    def _none_yet(self) -> Sequence[Any]:
        time.sleep(LOOK_S / 10)
        return ()


def packed(function: Callable[[Any], Any]) -> bytes:
    """Return a function for `Cluster.answers`, with the versions that a worker must have.

    Raises:
        PicklingError, AttributeError, TypeError: it cannot be pickled.
    """
    return pickle.dumps((versions(), pickle.dumps(function, _PROTOCOL)), _PROTOCOL)


def answer(packed: bytes, item: Any) -> Any:
    """Call a packed function in a worker, on one thread; return its result, or its UserError."""
    function = _unpacked(packed)
    if isinstance(function, UserError):
        return function
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        return function(item)
    except UserError as error:
        return error
    finally:
        torch.set_num_threads(threads)


def versions() -> dict[str, str]:
    """Versions that decide a result's bits, and if a function can be sent."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "edgestill": metadata.version("edgestill"),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


@functools.lru_cache(maxsize=4)
def _unpacked(packed: bytes) -> Callable[[Any], Any] | UserError:
    keep_freed_memory()
    theirs, function = pickle.loads(packed)
    ours, where = versions(), platform.node()
    for name, version in theirs.items():
        if ours[name] != version:
            return UserError(
                f"device.engine: the worker on {where} has {name} {ours[name]}, and this run {version}; install the "
                "same"
            )
    try:
        loaded: Callable[[Any], Any] = pickle.loads(function)
    except Exception as error:  # such as a class of a module that is not installed there
        return UserError(
            f"device.engine: the worker on {where} cannot load what it is sent ({error}); install the same there"
        )
    return loaded
