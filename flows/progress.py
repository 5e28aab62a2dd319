"""What a person sees while a run goes on: which stage of how many, how far it is, and a line when it ends."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID


class Progress(Protocol):
    def begin(self, stage: str, index: int, count: int) -> None: ...
    def tick(self, done: int, total: int, note: str) -> None: ...
    def say(self, line: str) -> None: ...
    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None: ...
    def close(self) -> None: ...


class Silent:
    """For library use."""

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
    """One line as a stage begins and one as it ends; for logs, pipes and `--quiet`."""

    def __init__(self, say: Callable[[str], None] | None = None, *, quiet: bool = False) -> None:
        self._say = say or _to_stderr
        self._quiet = quiet
        self._label = ""
        self._last = 0.0

    def begin(self, stage: str, index: int, count: int) -> None:
        self._label, self._last = f"[{index}/{count}] {stage}", time.monotonic()
        if not self._quiet:
            self._say(f"{self._label} …")

    def tick(self, done: int, total: int, note: str) -> None:
        if not self._quiet and time.monotonic() - self._last >= 30:
            self._last = time.monotonic()
            self._say(f"{self._label} {done}/{total} {note}".rstrip())

    def say(self, line: str) -> None:
        self._say(f"{self._label} {line}")

    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None:
        took = "was done" if reused else f"{seconds:.1f} s"
        self._say(f"{self._label} {took}: {sentence}")

    def close(self) -> None:
        pass


class Terminal:
    """A live bar for the stage at work, above it a line for each that ended."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True)
        self._bar = RichProgress(
            TextColumn("[bold cyan]{task.fields[place]}[/] {task.description:<10}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._place = ""

    def begin(self, stage: str, index: int, count: int) -> None:
        self._place = f"{index}/{count}"
        self._bar.start()
        self._task = self._bar.add_task(stage, total=None, place=self._place, note="")

    def tick(self, done: int, total: int, note: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)

    def say(self, line: str) -> None:
        self._console.print(f"{self._place} {line}", markup=False)

    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None:
        from rich.markup import escape

        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        took = "[dim]was done[/]" if reused else f"[dim]{seconds:6.1f} s[/]"
        self._console.print(f"[green]✓[/] [bold]{self._place} {stage:<10}[/] {took}  {escape(sentence)}")

    def close(self) -> None:
        self._bar.stop()


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def choose_progress(quiet: bool) -> Progress:
    """A live bar on a terminal, plain lines elsewhere and with `--quiet`."""
    if quiet or not sys.stderr.isatty():
        return PlainLines(quiet=quiet)
    return Terminal()
