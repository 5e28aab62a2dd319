"""Progress of a run for its user: the stage's number of how many, how far it is, and a line when it ends."""

import sys
import time
from collections.abc import Callable
from typing import Protocol

from edgestill.flows.terminal import Terminal, inert, say
from edgestill.pipeline.nicety import nicety


class Progress(Protocol):
    def begin(self, stage: str, index: int, count: int) -> None: ...
    def tick(self, done: int, total: int, note: str) -> None: ...
    def say(self, line: str) -> None: ...
    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None: ...
    def close(self) -> None: ...


class Silent:
    """No progress shown, for library use."""

    def begin(self, stage: str, index: int, count: int) -> None:
        pass

    def tick(self, done: int, total: int, note: str) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None:
        pass

    def close(self) -> None:
        pass


class PlainLines:
    """Plain lines for logs, pipes and `--quiet`: one at a stage's end; unless quiet also at its start and each 30 s."""

    def __init__(self, tell: Callable[[str], None] | None = None, *, quiet: bool = False, every_s: float = 30) -> None:
        self._every_s = every_s
        self._tell = tell or (lambda line: say(line, err=True))
        self._quiet = quiet
        self._label = ""
        self._last = 0.0

    def begin(self, stage: str, index: int, count: int) -> None:
        self._label, self._last = f"[{index}/{count}] {stage}", time.monotonic()
        if not self._quiet:
            self._tell(f"{self._label} …")

    def tick(self, done: int, total: int, note: str) -> None:
        if not self._quiet and time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self._tell(inert(f"{self._label} {done}/{total} {note}".rstrip()))

    def say(self, line: str) -> None:
        self._tell(inert(f"{self._label} {line}"))

    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None:
        took = "was done" if reused else f"{seconds:.1f} s"
        self._tell(inert(f"{self._label} {took}: {sentence}"))

    def close(self) -> None:
        pass


class Forgiving:
    """Wrapper of another progress: if showing it fails, the run goes on unseen, with a caution."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.cautions: list[str] = []

    def begin(self, stage: str, index: int, count: int) -> None:
        self._show(lambda: self._progress.begin(stage, index, count))

    def tick(self, done: int, total: int, note: str) -> None:
        self._show(lambda: self._progress.tick(done, total, note))

    def say(self, line: str) -> None:
        self._show(lambda: self._progress.say(line))

    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None:
        self._show(lambda: self._progress.end(stage, seconds, sentence, reused))

    def close(self) -> None:
        self._show(self._progress.close)

    def _show(self, call: Callable[[], None]) -> None:
        with nicety("the run's progress could not be shown to its end", self.cautions):
            call()
        if self.cautions:
            self._progress = Silent()


def choose_progress(quiet: bool) -> Progress:
    """A live bar on a terminal, plain lines elsewhere and with `--quiet`."""
    if quiet or not sys.stderr.isatty():
        return PlainLines(quiet=quiet)
    return Terminal()
