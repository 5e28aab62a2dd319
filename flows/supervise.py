"""Outlive a command's working process, and report the cause and place of its death and how to go on.

`supervised` forks before anything slow is imported: the new process works, the first one waits for it. The worker
notes its place in a file without a name, read by the first process after a death. A candidate (a trial of tuning, a
short training, a latency) on trial at that moment costs only itself: the run is resumed and tries it once more; after
two deaths it has failed. Any other death ends the run in one sentence.
"""

import contextlib
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edgestill.flows.terminal import say, show_cursor
from edgestill.pipeline.child import ended
from edgestill.pipeline.errors import CandidateError

_DEATHS = 2  # deaths of its process until a candidate counts as failed
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if os.name == "posix" else ()
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class _Notes:
    """This process's place in the run, kept in a file for the waiting process."""

    file: IO[bytes] | None = None
    place: dict[str, str] = field(default_factory=dict)  # run, stage, at, candidate
    deaths: list[dict[str, str]] = field(default_factory=list)  # a place each, and how the process ended there

    def update(self, **place: str) -> None:
        self.place |= place
        if self.file is not None:
            os.pwrite(self.file.fileno(), json.dumps(self.place).encode() + b"\n", 0)  # the first line counts

    def read(self) -> dict[str, Any]:
        assert self.file is not None
        first = os.pread(self.file.fileno(), 2**16, 0).partition(b"\n")[0]
        return dict(json.loads(first)) if first else {}


_NOTES = _Notes()


def note_stage(run: Path, stage: str, to_change: str, last: str | None = None) -> None:
    """Note that a stage of a run begins.

    Args:
        to_change: settings to change in another run should its process die again.
        last: stage that the run is to end with; None: its own last one.
    """
    _NOTES.update(run=str(run), stage=stage, to_change=to_change, last=last or "", at="", candidate="")


def note_progress(done: int, total: int, note: str) -> None:
    """Note how far the stage is."""
    _NOTES.update(at=f"{done} of {total}{f' ({note})' if note else ''}")


@contextlib.contextmanager
def attempting(candidate: str) -> Iterator[None]:
    """Try a candidate of the stage, such as `trial 3`.

    Raises:
        CandidateError: it has killed its process twice.
    """
    here = (_NOTES.place.get("stage"), candidate)
    deaths = [death["how"] for death in _NOTES.deaths if (death["stage"], death["candidate"]) == here]
    if len(deaths) >= _DEATHS:
        raise CandidateError(f"its process {deaths[-1]}", "process_died")
    _NOTES.update(candidate=candidate)
    try:
        yield
    finally:
        _NOTES.update(candidate="")


def supervised(arguments: Sequence[str], work: Callable[[Sequence[str]], int]) -> int:
    """Do the work of a command's arguments, in a process of its own where fork exists; return its exit code."""
    if not hasattr(os, "fork"):
        return work(arguments)
    while True:
        _NOTES.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - both processes keep it open to their ends
        parent, child = os.getpid(), os.fork()
        if not child:
            _live_with(parent)
            return work(arguments)
        code = _end_of(child)
        if code >= 0:
            return code
        place = _NOTES.read()
        _NOTES.file.close()
        show_cursor()  # a progress bar may have hidden it
        how = ended(code) + (", as the system does where memory runs out" if code == -signal.SIGKILL else "")
        if not place.get("candidate"):
            say(f"error: {_sentence(arguments[0], place, how)}", err=True)
            return 1
        _NOTES.deaths.append(place | {"how": how})
        say(f"{place['stage']}: the process of {place['candidate']} {how}; the run goes on", err=True)
        flags = [flag for flag in arguments if flag in ("--quiet", "-q", "--prefect", "--no-prefect")]
        until = ["--until", place["last"]] if place.get("last") else []
        arguments = ["resume", place["run"], *until, *flags]


def _sentence(command: str, place: dict[str, str], how: str) -> str:
    if "run" not in place:
        return f"the process of `edgestill {command}` {how}; nothing was written"
    stage = place["stage"]
    where = f" at {place['at']}" if place["at"] else ""
    return (
        f"the process of the {stage} stage {how}{where}; `edgestill resume {place['run']}` goes on from there; should "
        f"it die there again, `edgestill resume {place['run']} --set KEY=VALUE` goes on with another "
        f"{place['to_change']}"
    )


def _end_of(child: int) -> int:
    """Wait for the child and return its exit code, below 0 for a signal.

    Signals to end this process are passed on to the child; one of them that ends the child ends this process too.
    """

    def pass_on(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    kept = {number: signal.getsignal(number) for number in _PASSED_ON}
    for number, handler in kept.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for number, handler in kept.items():
        signal.signal(number, handler)
    if -code in _PASSED_ON:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _live_with(parent: int) -> None:
    """Tie the working process to its parent: end with it, and count a Ctrl-C received twice within a second once.

    A terminal sends Ctrl-C to both processes, and the parent passes its own on.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    last = -math.inf

    def interrupt(number: int, frame: object) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > 1:
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
