"""Asks a function of candidates in processes of their own, in the order asked for, and outlives a process that dies.

A process is forked, which takes some hundredths of a second and needs nothing to be pickled or imported, or spawned,
which works wherever the libraries of this process hold threads or a GPU. Each has the function once and computes on as
many threads as it is told. An outcome depends on the candidate alone, so the number of processes, how they were started
and the order in which they finish change nothing but the time.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import torch

from pipeline.child import ended, inherited
from pipeline.device import keep_freed_memory
from pipeline.errors import FailedError, UserError
from search.outcome import Outcome
from search.space import Architecture

Function = Callable[[Architecture], Outcome]  # may raise a UserError: what is wrong for every candidate

_UNTOUCHED_DEATHS = 3  # processes in a row that may die without a candidate before we give up
_PATIENCE_S = 5  # for a process to end when asked
_WATCH_S = 0.5  # how long a forked process may outlive this one


class UnloadableError(UserError):
    """A spawned process cannot import what the function is made of."""


class UnstartableError(FailedError):
    """Processes do not start here."""


@dataclass
class _Worker:
    process: Any
    connection: Connection
    is_ready: bool = False
    holds: int = 0  # the number of the function that it has; 0 is none
    job: int | None = None


class Pool:
    """Worker processes, no more than there are candidates; a context manager, at whose end none is left.

    Args:
        threads: that each computes on.
        forks: whether processes are forked. Several threads hang in such a one where this process has used several.
        has_script: whether spawned ones import this process's script, for what is pickled of it; one that is not
            guarded by `if __name__ == "__main__"` would run again in each.
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
        """End every process, at once where this one is being interrupted."""
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

    def outcomes(self, function: Function | bytes, architectures: Sequence[Architecture]) -> Iterator[Outcome]:
        """Each candidate's outcome, in the order given.

        A candidate whose process dies is tried once more with no other beside it, then it has failed.

        Args:
            function: itself for forked processes, pickled for spawned ones.

        Raises:
            UserError: the function's.
            UnloadableError, UnstartableError
        """
        if function != self._function:
            self._function, self._function_number = function, self._function_number + 1
            if self.forks:
                self._end(at_once=True)
        waiting, alone = deque(range(len(architectures))), deque[int]()
        died: set[int] = set()
        done: dict[int, Outcome] = {}
        for position in range(len(architectures)):
            while position not in done:
                self._assign(architectures, waiting, alone)
                for worker in self._heard():
                    job = worker.job
                    try:
                        said = worker.connection.recv()
                    except (EOFError, OSError):
                        reason = self._bury(worker)
                        if job is not None and job in died:
                            done[job] = {"failure": reason, "type": "process_died"}
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
                    done[job] = said
            yield done.pop(position)

    def _assign(self, architectures: Sequence[Architecture], waiting: deque[int], alone: deque[int]) -> None:
        """Give each idle process a candidate; one to be tried alone waits until all are idle, and the others for it."""
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
                with contextlib.suppress(OSError):  # it died meanwhile, which `_heard` tells next
                    self._send(worker, architectures[worker.job])

    def _send(self, worker: _Worker, architecture: Architecture) -> None:
        if worker.holds != self._function_number:
            assert isinstance(self._function, bytes), "a forked process has it from the start"
            worker.connection.send_bytes(self._function)
            worker.holds = self._function_number
        worker.connection.send_bytes(pickle.dumps(architecture))

    def _heard(self) -> list[_Worker]:
        """Those that have something to say, or have died; waits for the first."""
        heard = multiprocessing.connection.wait([worker.connection for worker in self._workers])
        return [worker for worker in self._workers if worker.connection in heard]

    def _bury(self, worker: _Worker) -> str:
        """Take a dead process out of the pool; how it ended."""
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join(_PATIENCE_S)
        code = worker.process.exitcode
        how = ended(code)
        if worker.job is None:
            self._untouched_deaths += 1
            if self._untouched_deaths >= _UNTOUCHED_DEATHS:
                raise UnstartableError(
                    f"scoring processes end before they have a candidate (the last {how}); a script that starts a "
                    'search needs `if __name__ == "__main__":` around it; search.workers: 1 needs no such script'
                )
        return f"its process {how}" + (", as the system does where memory runs out" if code == -signal.SIGKILL else "")

    def _start(self) -> _Worker:
        context: Any = multiprocessing.get_context("fork" if self.forks else "spawn")
        ours, theirs = context.Pipe()
        given = (theirs, self._threads, self._function if self.forks else None, os.getpid())
        process = context.Process(target=_serve, args=given, name="edgestill-score", daemon=True)
        try:
            with inherited(), contextlib.nullcontext() if self._has_script else _script_hidden():
                process.start()
        except OSError as error:
            raise UnstartableError(f"scoring processes cannot be started ({error})") from error
        theirs.close()  # so that its end is heard when the process dies
        return _Worker(process, ours, holds=self._function_number if self.forks else 0)


def cores() -> int:
    """How many cores this process may use."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextlib.contextmanager
def _script_hidden() -> Iterator[None]:
    """Keep multiprocessing from running this process's script again in the process that it starts."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def can_fork() -> bool:
    """Whether a fork of this process can compute: the system's libraries survive one, and no GPU is in use."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


def _serve(connection: Connection, threads: int, forked: Function | None, parent: int) -> None:
    """What a process does: take a function or a candidate; answer a candidate with its outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; its end closes the connection
    if forked is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(threads)  # one that was forked has none of its parent's threads
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
            if isinstance(given, Architecture):
                connection.send(function if isinstance(function, UserError) else _answer(function, given))
            else:
                function = given


def _end_with(parent: int) -> None:
    """End this forked process with its parent: its connection's other end, of which it has a copy, tells nothing."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(0)


def _answer(function: Function, architecture: Architecture) -> Outcome | UserError:
    try:
        return function(architecture)
    except UserError as error:
        return error
