"""Pool of worker processes: runs a function on items, keeps their order and survives a process's death.

Processes are forked or spawned. A fork takes some hundredths of a second and needs nothing pickled or imported. A
spawned process works even if the libraries of this process hold threads or a GPU. Each worker receives the function
once and computes on the given number of threads. An answer depends on the item alone, so the number of processes,
their start method and their order of finishing change only the time.
"""

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch

from edgestill.pipeline.child import ended, inherited
from edgestill.pipeline.engines.base import Answer
from edgestill.pipeline.engines.forking import end_with, nothing_collected, processor_ticks
from edgestill.pipeline.errors import FailedError, UserError
from edgestill.pipeline.free_memory import keep_freed_memory

Function = Callable[[Any], Any]  # may raise a UserError: a fault of every item

_UNTOUCHED_DEATHS = 3  # processes in a row that may die before they have an item
_PATIENCE_S = 5  # wait for a process to end when asked
_STUCK_S = 60.0  # a forked process that has taken no processor time for so long waits for a lost thread
_TICKS = 3  # of the processor's clock; `end_with` takes less in that time


class UnloadableError(UserError):
    """Failure of a spawned process to load the function."""


class UnstartableError(FailedError):
    """Failure to start processes on this machine."""


class _Item(NamedTuple):
    value: Any


@dataclass
class _Worker:
    process: Any
    connection: Connection
    is_ready: bool = False
    holds: int = 0  # number of the function that it has; 0 is none
    job: int | None = None
    ticks: int = -_TICKS  # processor time when it was last looked at
    is_stuck: bool = False


class Pool:
    """Pool of worker processes, at most one for each item; a context manager, without processes left at its end.

    Args:
        threads: number of threads of each process.
        forks: True to fork processes. In a fork, several threads hang if this process has used several.
        has_script: True if spawned processes import this process's script, for objects pickled from it. A script
            without `if __name__ == "__main__"` would run again in each.
    """

    def __init__(self, size: int, *, threads: int = 1, forks: bool = False, has_script: bool = True) -> None:
        self._size, self._threads, self.forks, self._has_script = size, threads, forks, has_script
        self._workers: list[_Worker] = []
        self._function: Function | bytes = b""
        self._function_number = 0
        self._untouched_deaths = 0
        self._one_is_alone = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End every process, at once if the context is left by an exception."""
        self._end(at_once=kind is not None)

    def _end(self, *, at_once: bool) -> None:
        for worker in self._workers:
            worker.connection.close()  # an idle worker ends by itself
            if at_once or self.forks or worker.job is not None or not worker.is_ready:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_PATIENCE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def answers(self, function: Function | bytes, items: Sequence[Any]) -> Iterator[Answer]:
        """Yield the answer to each item, in the order given.

        If its process dies, an item is tried once more, alone. If it dies again, the item is given up.

        Args:
            function: the function itself for forked processes, its pickle for spawned ones.

        Raises:
            UserError: raised by the function.
            UnloadableError: a spawned process cannot load the function.
            UnstartableError: processes cannot be started, or end before they have an item.
        """
        if function != self._function:
            self._function, self._function_number = function, self._function_number + 1
            if self.forks:
                self._end(at_once=True)
        try:
            yield from self._answers(items)
        finally:
            if any(worker.job is not None for worker in self._workers):  # nobody waits for the rest
                self._end(at_once=True)

    def _answers(self, items: Sequence[Any]) -> Iterator[Answer]:
        waiting, alone = deque(range(len(items))), deque[int]()
        died: set[int] = set()
        done: dict[int, Answer] = {}
        for position in range(len(items)):
            while position not in done:
                self._assign(items, waiting, alone)
                for worker in self._heard():
                    job = worker.job
                    try:
                        said = worker.connection.recv()
                    except (EOFError, OSError):
                        reason = self._bury(worker)
                        if job is not None and job in died:
                            done[job] = Answer(None, 1, reason)
                        elif job is not None:
                            died.add(job)
                            alone.append(job)
                        continue
                    self._untouched_deaths = 0
                    if job is None:
                        worker.is_ready = True
                        continue
                    worker.job = None
                    if isinstance(said, UserError):
                        raise said
                    done[job] = Answer(said, int(job in died))
            yield done.pop(position)

    def _assign(self, items: Sequence[Any], waiting: deque[int], alone: deque[int]) -> None:
        """Give each idle process an item.

        An item to be tried alone waits until all processes are idle, and the other items wait for it.
        """
        wanted = len(waiting) + len(alone) + sum(worker.job is not None for worker in self._workers)
        while len(self._workers) < min(self._size, wanted):
            self._workers.append(self._start())
        idle = [worker for worker in self._workers if worker.is_ready and worker.job is None]
        is_busy = any(worker.job is not None for worker in self._workers)
        if (alone or self._one_is_alone) and is_busy:
            return
        self._one_is_alone = bool(alone and idle)
        for worker in idle[:1] if alone else idle:
            queue = alone or waiting
            if queue:
                worker.job = queue.popleft()
                with contextlib.suppress(OSError):  # if it has died, `_heard` finds out next
                    self._send(worker, items[worker.job])

    def _send(self, worker: _Worker, item: Any) -> None:
        if worker.holds != self._function_number:
            assert isinstance(self._function, bytes), "a forked process has it from the start"
            worker.connection.send_bytes(self._function)
            worker.holds = self._function_number
        worker.connection.send_bytes(pickle.dumps(_Item(item)))

    def _heard(self) -> list[_Worker]:
        """Wait until a worker has sent something or died; return all such workers.

        A fork may wait for ever for a lock held by a thread that it does not have. Such a process is killed.
        """
        connections = [worker.connection for worker in self._workers]
        while not (heard := multiprocessing.connection.wait(connections, _STUCK_S if self.forks else None)):
            for worker in self._workers:
                if worker.job is not None or not worker.is_ready:
                    before, worker.ticks = worker.ticks, processor_ticks(worker.process.pid)
                    worker.is_stuck = worker.ticks - before < _TICKS
                    if worker.is_stuck:
                        worker.process.kill()
        return [worker for worker in self._workers if worker.connection in heard]

    def _bury(self, worker: _Worker) -> str:
        """Take a dead process out of the pool and return how it ended.

        Raises:
            UnstartableError: several in a row ended without an item.
        """
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join(_PATIENCE_S)
        code = worker.process.exitcode
        how = f"took no processor time for {_STUCK_S:g} s" if worker.is_stuck else ended(code)
        if worker.job is None:
            self._untouched_deaths += 1
            if self._untouched_deaths >= _UNTOUCHED_DEATHS:
                raise UnstartableError(
                    f"scoring processes end before they have a candidate (the last {how}); a script that starts a "
                    'search needs `if __name__ == "__main__":` around it; search.workers: 1 needs no such script'
                )
        is_system = code == -signal.SIGKILL and not worker.is_stuck
        return f"its process {how}" + (", as the system does where memory runs out" if is_system else "")

    def _start(self) -> _Worker:
        context: Any = multiprocessing.get_context("fork" if self.forks else "spawn")
        ours, theirs = context.Pipe()
        given = (theirs, self._threads, self._function if self.forks else None, os.getpid())
        process = context.Process(target=_serve, args=given, name="edgestill-score", daemon=True)
        try:
            with inherited(), contextlib.nullcontext() if self._has_script else _script_hidden(), nothing_collected():
                process.start()
        except OSError as error:
            raise UnstartableError(f"scoring processes cannot be started ({error})") from error
        theirs.close()  # so that ours is closed when the process dies
        return _Worker(process, ours, holds=self._function_number if self.forks else 0)


def cores() -> int:
    """Number of cores available to this process."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextlib.contextmanager
def _script_hidden() -> Iterator[None]:
    """Keep multiprocessing from running this process's script again in a child process."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _serve(connection: Connection, threads: int, forked: Function | None, parent: int) -> None:
    """Run a worker process: receive functions and items, answer each item with the function's result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes the connection
    if forked is not None:
        gc.freeze()  # the end of a parent's object may wait for threads that a fork does not have
        gc.enable()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(threads)  # a forked process has none of its parent's threads
    function: Function | UserError = forked or UnloadableError("no function was sent")
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        connection.send("ready")
        while True:
            packed = connection.recv_bytes()
            try:
                given = pickle.loads(packed)
            except Exception as error:  # such as a class of a module that only the parent can import
                function = UnloadableError(f"search.workers: a process cannot load what scores ({error}); 1 needs none")
                continue
            if isinstance(given, _Item):
                connection.send(function if isinstance(function, UserError) else _answer(function, given.value))
            else:
                function = given


def _answer(function: Function, item: Any) -> Any:
    try:
        return function(item)
    except UserError as error:
        return error
