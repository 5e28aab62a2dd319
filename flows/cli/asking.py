"""Inputs that a person means with arguments of `edgestill predict`, and their answers as a table."""

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from edgestill.export.bundle.predict import Answer, Failure
from edgestill.export.bundle.scripts.run_images import ENDINGS
from edgestill.pipeline.data.datasets.table import Column, Format, read_columns
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.foreign import MAX_TABLE_BYTES, read_text_bounded

STDIN = "-"
_TABLES, _LINES = (".csv", ".tsv"), ".txt"
_COLUMNS = {"image": "path", "text": "sentence"}  # by kind of input: the column of a table, if none is named


def inputs_of(given: Sequence[str], kind: str, column: str | None) -> list[str]:
    """Return the inputs one by one: images of folders, cells of tables, lines of text files and of standard input.

    Args:
        kind: `image` or `text`.
        column: of the tables; None: `path` of images, `sentence` of texts.

    Raises:
        DataError: a file or a column is missing, or nothing is left.
    """
    found = [one for argument in given for one in _meant(argument, kind, column)]
    if not found:
        raise DataError(f"there is nothing to predict in {', '.join(given)}")
    broken = next((one for one in found if kind == "text" and _is_broken(one)), None)
    if broken is not None:  # names of files may be so
        raise DataError(f"the text {broken[:80]!r} is not UTF-8; save it as UTF-8")
    return found


def _is_broken(text: str) -> bool:
    """True if the shell or standard input held bytes that are not UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _meant(argument: str, kind: str, column: str | None) -> Iterator[str]:
    path = Path(argument)
    ending = path.suffix.lower()
    if argument == STDIN:
        yield from _lines(sys.stdin.read())
    elif ending in (*_TABLES, _LINES) and _is_name(argument, kind):
        yield from _held(path, ending, kind, column)
    elif kind == "image" and _holds(path.is_dir):
        yield from sorted(map(str, (one for one in path.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file())))
    elif _holds(path.is_dir):
        raise DataError(f"{path} is a folder; name the texts themselves, or files of them (.txt, .csv, .tsv)")
    else:
        yield argument


def _is_name(argument: str, kind: str) -> bool:
    """True unless the argument is a text that happens to end like a file."""
    return kind == "image" or len(argument.split()) == 1 or _holds(Path(argument).is_file)


def _holds(question: Callable[[], bool]) -> bool:
    """Ask about a path; a text too long for one is none."""
    try:
        return question()
    except OSError:
        return False


def _held(path: Path, ending: str, kind: str, column: str | None) -> Iterator[str]:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if ending == _LINES:
        cells: Iterable[str] = _lines(read_text_bounded(path, MAX_TABLE_BYTES))
    else:
        wanted = Column(column or _COLUMNS[kind], "--column")
        cells = [row.cells[0] for row in read_columns(path, Format("utf-8", None, None), [wanted])[1]]
    yield from (str(path.parent / cell) if kind == "image" else cell for cell in cells)


def _lines(text: str) -> list[str]:
    """Split at the ends of lines alone, so that the answers keep to the file's lines: a text may hold U+2028."""
    return [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


def answers_csv(found: Iterable[Answer | Failure]) -> str:
    """Return a table with a row for each input, in order: its label and probability, or its error."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("input", "label", "probability", "error"))
    for one in found:
        if isinstance(one, Failure):
            table.writerow((one.input, "", "", one.message))
        else:
            table.writerow((one.input, one.label, f"{one.probability:.6f}", ""))
    return out.getvalue()
