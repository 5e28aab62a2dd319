"""Workers of the configured engine: the one place that spreads independent work, whichever stage it is of.

Candidates, trials, entrants and seeds differ in the function and the items alone. An answer depends on those alone.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from edgestill.pipeline.engines import make_cluster
from edgestill.pipeline.engines.base import Answer, packed
from edgestill.pipeline.engines.pool import Pool

UNSENDABLE = (pickle.PicklingError, AttributeError, TypeError)  # errors of pickle


class Workers:
    """Processes of this machine, spawned when first needed, or a cluster; a context manager.

    Args:
        engine: configuration of `pipeline.engines`; `local` spawns processes, as `processes` does.
        size: number of processes, and of workers of a cluster that is started for this process alone.
        threads: number of threads of each process of this machine.
    """

    def __init__(self, engine: Any, size: int, threads: int = 1) -> None:
        self.cluster = make_cluster(engine, size)
        self._pool = Pool(size, threads=threads)
        self._function: Callable[[Any], Any] | None = None
        self._packed = b""

    def __enter__(self) -> Self:
        if self.cluster is not None:
            self.cluster.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.cluster is not None:
            self.cluster.stop()
        self._pool.__exit__(kind, error, traceback)

    def require_sendable(self, function: Callable[[Any], Any]) -> None:
        """Pack a function for `answers`, which then need not do it again.

        Raises:
            PicklingError, AttributeError, TypeError: it cannot be pickled.
        """
        if function is not self._function:
            self._packed = pickle.dumps(function) if self.cluster is None else packed(function)
            self._function = function

    def answers(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Answer]:
        """Yield the function's answer to each item, in the order given; a lost worker costs its item a second try.

        Raises:
            UserError: raised by the function.
            FailedError: there is no worker.
        """
        self.require_sendable(function)
        if items:
            yield from (self._pool if self.cluster is None else self.cluster).answers(self._packed, items)
