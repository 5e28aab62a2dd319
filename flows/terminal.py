"""The one place for printing: text is made inert and short, in characters of the stream's encoding.

Messages quote files from elsewhere, and no name in them may steer the terminal, fake a line or flood it. A character
missing from the stream's encoding is spelt plainer. A stream that takes no more (a closed pipe, a full disk) does not
fail a command with its work done.
"""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from edgestill.pipeline.errors import FailedError, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

LONGEST = 2000  # characters of a line; our own are far shorter
_CELL = 200  # characters of a table's cell
_PLAINER = {"✓": "+", "×": "x", "–": "-", "−": "-", "…": "...", "─": "-", "±": "+-", "≤": "<="}
_HANDLER = "edgestill.plainer"


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    """Codec error handler: replace characters missing from an encoding by plainer ones."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_PLAINER.get(c) or ascii(c)[1:-1] for c in lacking), error.end


codecs.register_error(_HANDLER, _plainer)


def inert(text: str, longest: int = LONGEST) -> str:
    """Make one line of printable characters: others, line breaks too, are spelt out; a text too long is cut."""
    spaced = text.replace("\N{NO-BREAK SPACE}", " ")
    cut = spaced if len(spaced) <= longest else f"{spaced[: longest - 1]}…"
    spelt = printable(cut)  # up to ten times as long
    return spelt if len(spelt) <= 2 * longest else f"{spelt[: longest - 1]}…"


def joined(lines: Iterable[str]) -> str:
    """Join lines to one text for `say`; a line break within a line is spelt out."""
    return "\n".join(map(inert, lines))


def say(text: str, *, err: bool = False) -> None:
    """Print lines about the work, on standard output or standard error.

    Text not written (to a full disk, say) is dropped with a warning on standard error; at a closed pipe, silently.
    """
    problem = _write(joined(text.split("\n")), err)
    if problem and not err:
        say(f"warning: standard output cannot be written ({problem})", err=True)


def show_cursor() -> None:
    """Bring back the terminal's cursor after a process ended while its progress bar hid it."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")


def answer(text: str) -> None:
    """Print the lines a command was called for.

    Raises:
        FailedError: they cannot be written. A pipe closed by its reader is no error.
    """
    answer_whole(joined(text.split("\n")))


def answer_whole(text: str) -> None:
    """Print as `answer` does, but without cutting or spelling out; for text already inert, such as ASCII JSON."""
    problem = _write(text, err=False)
    if problem:
        raise FailedError(f"standard output cannot be written ({problem}); free some space, or write elsewhere")


def _write(text: str, err: bool) -> str:
    """Write to the stream; return the reason of a failure, empty on success or if nobody reads any more."""
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
    """Redirect a stream to the null device: the interpreter flushes it once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_streams() -> None:
    """Prepare the streams for a command.

    Output of libraries is spelt plainer too. A closed standard descriptor is filled, so no file is opened in its place.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def close_streams() -> None:
    """Flush the streams after a command: unread output of libraries is then no error at the interpreter's end."""
    for stream in (sys.stderr, sys.stdout):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            _silence(stream)
        except ValueError:  # closed
            continue


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, words_last: bool = False) -> list[str]:
    """Lines of a table, at most 160 columns wide; the first column is aligned left, others right, words in the last."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    left = (0, len(columns) - 1) if words_last else (0,)
    for position, column in enumerate(columns):
        made.add_column(column, justify="left" if position in left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(inert(cell, _CELL)) for cell in row))
    out = io.StringIO()
    Console(file=out, width=160, color_system=None, legacy_windows=False).print(made)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def _bar(console: "Console") -> "Progress":
    """Make a progress bar that leaves out its less important columns where they would not fit."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column, Table

    def one(**options: Any) -> Column:
        return Column(no_wrap=True, overflow="ellipsis", **options)

    place = TextColumn("{task.fields[place]}", style="bold cyan", markup=False, table_column=one())
    stage = TextColumn("{task.description:<10}", markup=False, table_column=one())
    bar, count = BarColumn(bar_width=28), MofNCompleteColumn(table_column=one())
    elapsed, left = TimeElapsedColumn(table_column=one()), TextColumn("left", table_column=one())
    remaining = TimeRemainingColumn(table_column=one())
    note = TextColumn("{task.fields[note]}", style="dim", markup=False, table_column=one())
    order: tuple[ProgressColumn, ...] = (place, stage, bar, count, elapsed, left, remaining, note)
    by_importance: tuple[tuple[int, tuple[ProgressColumn, ...]], ...] = (  # with their widths, a space each included
        (17, (place, stage)), (14, (count,)), (13, (left, remaining)), (29, (bar,)), (8, (elapsed,)), (16, (note,)),
    )  # fmt: skip

    class Fitting(Progress):
        def make_tasks_table(self, tasks: Iterable[Any]) -> Table:
            room, kept = console.width, set[ProgressColumn]()
            for width, columns in by_importance:
                room -= width
                if room < 0:
                    break
                kept.update(columns)
            note.get_table_column().max_width = max(1, room + 15)
            self.columns = tuple(column for column in order if column in kept)
            return super().make_tasks_table(tasks)

    return Fitting(*order, console=console, transient=True)


class Terminal:
    """A live bar for the running stage, with one line above it for each finished stage.

    Lines are not wrapped, so that a command in one can be copied whole.
    """

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._bar = _bar(self._console)
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
        self._console.print(f"{self._place} {inert(line)}", markup=False, soft_wrap=True)

    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None:
        from rich.text import Text

        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        took = "was done" if reused else f"{seconds:6.1f} s"
        head = (("✓", "green"), " ", (f"{self._place} {stage:<10}", "bold"), " ", (took, "dim"))
        self._console.print(Text.assemble(*head, f"  {inert(sentence)}"), soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()
