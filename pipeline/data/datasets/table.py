"""Tab- and comma-separated tables, read whole; each row has the number of its last line."""

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from edgestill.pipeline.errors import DataError, nearest
from edgestill.pipeline.foreign import read_bounded
from edgestill.pipeline.free_memory import require_memory

_MOST_BYTES, _COPIES = 2**36, 8  # bytes of memory for each byte read: text, rows, cells


class Format(NamedTuple):
    """Format of a file; None takes it from the file itself."""

    encoding: str
    delimiter: str | None  # None: a comma in .csv, a tab in others
    columns: tuple[str, ...] | None  # None: the first line names them


class Row(NamedTuple):
    line: int
    cells: tuple[str, ...]


class Column(NamedTuple):
    name: str
    key: str  # of the configuration, that names it
    is_default: bool = False  # then it also stands for the only column that nobody asked for


def read_columns(path: Path, form: Format, wanted: Sequence[Column]) -> tuple[list[str], list[Row]]:
    """Read the wanted columns: their names in the file, and their cells, row by row; blank lines are left out.

    Quotes have no meaning in tab-separated files, as these are usually written: a quotation mark belongs to its text.
    A first line that repeats the given column names is a header and left out.

    Raises:
        DataError: wrong encoding, no rows, a missing or repeated column, or a row with too many or too few cells.
    """
    rows = list(read_rows(path, form))
    if form.columns is not None:
        columns = form.columns
        rows = rows[1:] if rows and rows[0].cells == columns else rows
    else:
        if not rows:
            raise DataError(f"{path} is empty")
        columns, rows = tuple(cell.strip() for cell in rows[0].cells), rows[1:]
    names = columns_named(path, wanted, columns, lambda column: _way_out(column, form, columns))
    for row in rows:
        if len(row.cells) != len(columns):
            raise DataError(
                f"{path}, line {row.line}: {len(row.cells)} cells for {len(columns)} columns "
                f"({', '.join(columns)}); data.delimiter says what parts them"
            )
    if not rows:
        raise DataError(f"{path} has no rows")
    places = [columns.index(name) for name in names]
    return names, [Row(row.line, tuple(row.cells[place] for place in places)) for row in rows]


def columns_named(
    path: Path, wanted: Sequence[Column], columns: tuple[str, ...], way_out: Callable[[Column], str]
) -> list[str]:
    """Return the names of the wanted columns among those of a file.

    Args:
        way_out: clause for a column that is missing.

    Raises:
        DataError: one is missing or repeated.
    """
    names = _found(wanted, columns)
    for name, column in zip(names, wanted, strict=True):
        if name not in columns:
            raise DataError(f"{path} has no column {name!r}; {nearest(name, columns)}; {way_out(column)}")
        if columns.count(name) > 1:
            raise DataError(f"{path} has {columns.count(name)} columns named {name!r}; names must differ")
    return names


def _found(wanted: Sequence[Column], columns: tuple[str, ...]) -> list[str]:
    others = [name for name in columns if name not in {column.name for column in wanted}]
    return [
        others[0] if column.is_default and column.name not in columns and len(others) == 1 else column.name
        for column in wanted
    ]


def _way_out(column: Column, form: Format, columns: tuple[str, ...]) -> str:
    if not column.key.startswith("data."):
        return f"name one with {column.key}"
    if form.columns:
        return (
            f"data.columns gives these names: set data.columns to null where the file's first line has its own, and "
            f"{column.key} to one of them"
        )
    parting = next((mark for mark in ";|\t," if len(columns) == 1 and mark in columns[0]), None)
    if parting is not None:
        return f"the whole line is one cell; set data.delimiter to {parting!r} if that is what parts the cells"
    return f"name one in {column.key}; if this line is no header, name the columns in data.columns"


def read_rows(path: Path, form: Format) -> Iterator[Row]:
    """Yield the rows of a table, its header included; blank lines are left out.

    Raises:
        DataError: wrong encoding, or a quotation mark out of place.
    """
    delimiter = form.delimiter or default_delimiter(path)
    lines = io.StringIO(decoded(path, form.encoding), newline="")
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    read = 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Row(reader.line_num, tuple(cells))
            read = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}, in a row that begins at line {read + 1}; a quotation mark at a "
            "cell's beginning opens it up to the next one, and one within it is written twice"
        ) from None


def default_delimiter(path: Path) -> str:
    return "," if path.suffix == ".csv" else "\t"


def decoded(path: Path, encoding: str) -> str:
    """Read a whole file of text.

    Raises:
        DataError: it is of another encoding, or larger than the free memory allows.
    """
    data = read_bounded(path, _MOST_BYTES)
    require_memory(_COPIES * len(data), f"{path}, a table of {len(data):,} bytes,")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        usual = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin-1"
        raise DataError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not {encoding}; give the file's encoding in "
            f"data.encoding ({usual} is a frequent one), or save it as utf-8"
        ) from None
