"""Scores candidates in processes of their own, in the order asked for, and outlives a process that dies.

Processes are spawned, not forked: a fork of a process whose libraries hold threads may hang. Each gets the pickled
evaluator once and computes on one thread. An outcome depends on the candidate alone, so the number of processes and the
order in which they finish change nothing but the time.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from pipeline.child import inherited
from pipeline.device import keep_freed_memory
from pipeline.errors import FailedError, UserError
from search.attempt import Outcome, attempt
from search.evaluate import Evaluator
from search.space import Architecture

_UNTOUCHED_DEATHS = 3  # processes in a row that may die without a candidate before we give up
_PATIENCE_S = 5  # for a process to end when asked


@dataclass
class _Worker:
    process: Any
    connection: Connection
    is_ready: bool = False
    holds: int = 0  # the number of the evaluator that it was sent; 0 is none
    job: int | None = None


class Pool:
    """Worker processes; a context manager, at whose end none is left."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._workers: list[_Worker] = []
        self._payload, self._payload_number = b"", 0
        self._untouched_deaths = 0
        self._one_is_alone = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End every process, at once where this one is being interrupted."""
        for worker in self._workers:
            worker.connection.close()  # an idle worker ends by itself
            if kind is not None or worker.job is not None or not worker.is_ready:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_PATIENCE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def outcomes(self, payload: bytes, architectures: Sequence[Architecture]) -> Iterator[Outcome]:
        """Each candidate's outcome, in the order given.

        A candidate whose process dies is tried once more with no other beside it, then it has failed.

        Args:
            payload: a pickled (Evaluator, scorer).

        Raises:
            UserError: something is wrong for every candidate.
            FailedError: processes do not start.
        """
        if payload != self._payload:
            self._payload, self._payload_number = payload, self._payload_number + 1
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
                    if isinstance(said, str):
                        raise UserError(said)
                    done[job] = said
            yield done.pop(position)

    def _assign(self, architectures: Sequence[Architecture], waiting: deque[int], alone: deque[int]) -> None:
        """Give each idle process a candidate; one to be tried alone waits until all are idle, and the others for it."""
        while len(self._workers) < self._size:
            self._workers.append(_start())
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
        if worker.holds != self._payload_number:
            worker.connection.send_bytes(self._payload)
            worker.holds = self._payload_number
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
        how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
        if worker.job is None:
            self._untouched_deaths += 1
            if self._untouched_deaths >= _UNTOUCHED_DEATHS:
                raise FailedError(
                    f"scoring processes end before they have a candidate (the last {how}); a script that starts a "
                    'search needs `if __name__ == "__main__":` around it; search.workers: 1 scores without processes'
                )
        return f"its process {how}" + (", as the system does where memory runs out" if code == -signal.SIGKILL else "")


def cores() -> int:
    """How many cores this process may use."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), name="edgestill-score", daemon=True)
    with inherited():
        process.start()
    theirs.close()  # so that its end is heard when the process dies
    return _Worker(process, ours)


def _serve(connection: Connection) -> None:
    """What a process does: take an evaluator or a candidate; answer a candidate with its outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; its end closes the connection
    keep_freed_memory()
    evaluator: Evaluator | None = None
    scorer = problem = ""
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        connection.send("ready")
        while True:
            packed = connection.recv_bytes()
            try:
                given = pickle.loads(packed)
            except Exception as error:  # such as a class of a module that only the parent can import
                evaluator, problem = None, f"search.workers: a process cannot load what scores ({error}); 1 needs none"
                continue
            if not isinstance(given, Architecture):
                evaluator, scorer = given
                continue
            connection.send(problem if evaluator is None else _answer(evaluator, scorer, given))


def _answer(evaluator: Evaluator, scorer: str, architecture: Architecture) -> Outcome | str:
    try:
        return attempt(evaluator, scorer, architecture)
    except UserError as error:
        return str(error)
