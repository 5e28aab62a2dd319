"""The one place that prints: what is said becomes inert and short, in characters that the stream takes.

It quotes files from elsewhere, and no name in them may steer the terminal, make up a line or flood it. A character that
the stream cannot encode is spelt plainer. A stream that takes nothing more, a closed pipe or a full disk, is no reason
to end a command whose work is done.
"""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import FailedError, printable

if TYPE_CHECKING:
    from rich.progress import TaskID

LONGEST = 2000  # characters of a line; our own are far shorter
_CELL = 200  # characters of a table's cell
_PLAINER = {"✓": "+", "×": "x", "–": "-", "−": "-", "…": "...", "─": "-", "±": "+-", "≤": "<="}
_HANDLER = "edgestill.plainer"


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_PLAINER.get(c) or ascii(c)[1:-1] for c in lacking), error.end


codecs.register_error(_HANDLER, _plainer)


def inert(text: str, longest: int = LONGEST) -> str:
    """One line of printable characters: what would steer a terminal or break the line is spelt out, the rest cut."""
    spaced = text.replace("\N{NO-BREAK SPACE}", " ")
    cut = spaced if len(spaced) <= longest else f"{spaced[: longest - 1]}…"
    spelt = printable(cut)  # which may be ten times as long
    return spelt if len(spelt) <= 2 * longest else f"{spelt[: longest - 1]}…"


def joined(lines: Iterable[str]) -> str:
    """Lines as one text for `say`; a line break within one of them is spelt out."""
    return "\n".join(map(inert, lines))


def say(text: str, *, err: bool = False) -> None:
    """Print lines about what is done, on standard output or standard error.

    What cannot be written is dropped, with a warning on standard error; a reader that closed a pipe has had enough.
    """
    problem = _write(joined(text.split("\n")), err)
    if problem and not err:
        say(f"warning: standard output cannot be written ({problem})", err=True)


def show_cursor() -> None:
    """Bring back the cursor of a terminal whose process ended while a progress bar hid it."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")


def answer(text: str) -> None:
    """Print lines that the command is there to give.

    Raises:
        FailedError: they cannot be written; a reader that closed the pipe has had enough.
    """
    answer_whole(joined(text.split("\n")))


def answer_whole(text: str) -> None:
    """The same for text that is inert as it is and that nothing may be cut from, such as ASCII JSON."""
    problem = _write(text, err=False)
    if problem:
        raise FailedError(f"standard output cannot be written ({problem}); free some space, or write elsewhere")


def _write(text: str, err: bool) -> str:
    """Why the stream did not take it; empty where it did, or where nobody reads any more."""
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # closed before we began
        return ""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, _HANDLER).decode(encoding) + "\n")
        stream.flush()
    except OSError as error:
        _silence(stream)
        return "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
    except ValueError:  # closed since
        return ""
    return ""


def _silence(stream: Any) -> None:
    """Lead a stream nowhere: the interpreter flushes it once more as it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_streams() -> None:
    """Before a command: what libraries print is spelt plainer too; no file is opened as a stream that was closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def close_streams() -> None:
    """After a command: what libraries printed and nobody reads is no error as the interpreter ends."""
    for stream in (sys.stderr, sys.stdout):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            _silence(stream)
        except ValueError:  # closed
            continue


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table's lines, at most 160 columns wide; the first column to the left, the others to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        made.add_column(column, justify="right" if position else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(inert(cell, _CELL)) for cell in row))
    out = io.StringIO()
    Console(file=out, width=160, color_system=None, legacy_windows=False).print(made)
    return [line.rstrip() for line in out.getvalue().splitlines()]


class Terminal:
    """A live bar for the stage at work, above it a line for each that ended."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.fields[place]}", style="bold cyan", markup=False),
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
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
            self._bar.update(self._task, completed=done, total=total, note=inert(note, _CELL))

    def say(self, line: str) -> None:
        self._console.print(f"{self._place} {inert(line)}", markup=False)

    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None:
        from rich.text import Text

        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        took = "was done" if reused else f"{seconds:6.1f} s"
        head = (("✓", "green"), " ", (f"{self._place} {stage:<10}", "bold"), " ", (took, "dim"))
        self._console.print(Text.assemble(*head, f"  {inert(sentence)}"))

    def close(self) -> None:
        self._bar.stop()
