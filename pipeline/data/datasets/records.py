"""Files of records, parquet and jsonl: their columns by name, their cells as text."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from edgestill.pipeline.data.datasets.table import Column, Format, Row, columns_named, decoded
from edgestill.pipeline.errors import DataError, MissingDependencyError, first_line
from edgestill.pipeline.free_memory import require_memory

ENDINGS = (".parquet", ".jsonl")
A_PICTURE = "\0"  # stands in `first_records` for a cell of bytes, or of {bytes, path}
_AT_ONCE, _COPIES = 64, 8  # rows in memory; bytes of memory for each byte of theirs
_LONGEST = 2**24  # characters of a line
_HALF = re.compile(r"[\ud800-\udfff]")


class Records(NamedTuple):
    """Wanted columns of a file."""

    names: list[str]  # of the columns in the file
    rows: list[Row]  # `line` counts the lines of jsonl from 1, the rows of parquet from 0
    classes: list[str] | None = None  # of the last column, in order; None where the file does not tell them


def place_of(path: Path, line: int) -> str:
    """Name a row of a file for a person."""
    return f"{path}, {'row' if path.suffix == '.parquet' else 'line'} {line}"


def read_records(path: Path, form: Format, wanted: Sequence[Column]) -> Records:
    """Read the wanted columns as text, the labels' last; a cell without a value is empty.

    Raises:
        DataError: the file or a row cannot be read, a column is missing, or a cell holds no text.
        MissingDependencyError: parquet needs a library that is not installed.
    """
    unused = [key for key, value in (("columns", form.columns), ("delimiter", form.delimiter)) if value is not None]
    if unused:
        raise DataError(f"{path} names its columns itself; set data.{unused[0]} to null")
    return _of_parquet(path, wanted) if path.suffix == ".parquet" else _of_lines(path, form.encoding, wanted)


def first_records(path: Path, count: int) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the first rows: A_PICTURE for one, nothing for other cells without text.

    Raises:
        DataError, MissingDependencyError: as `read_records`.
    """
    if path.suffix != ".parquet":
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            lines = list(islice(iter(lambda: file.readline(_LONGEST), ""), count))
        found = [record_of(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        names = list(dict.fromkeys(name for record in found for name in record))
        return names, [[_shown(record.get(name)) for name in names] for record in found]
    file = open_parquet(path)
    names, plain = file.schema_arrow.names, [field.name for field in file.schema_arrow if _is_plain(field.type)]
    else_shown = {field.name: A_PICTURE if _is_pictured(field.type) else "" for field in file.schema_arrow}
    batch = next(_batches(path, file, plain), None) if plain else None
    size = 0 if batch is None else batch.num_rows
    cells = {name: list(map(_shown, batch.column(name).to_pylist())) for name in plain} if batch is not None else {}
    return names, [[cells[name][row] if name in cells else else_shown[name] for name in names] for row in range(size)]


def open_parquet(path: Path) -> Any:
    """Open a parquet file, mapped into memory.

    Raises:
        DataError: it is none.
        MissingDependencyError: the library is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingDependencyError("parquet files need `pip install 'edgestill[datasets]'`") from None
    try:
        return parquet.ParquetFile(path, memory_map=True)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def class_names_of(metadata: Any, column: str) -> list[str] | None:
    """Return a column's class names that Hugging Face's library wrote into a file's metadata; None without."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
        if isinstance(found, dict):
            found = [found[key] for key in sorted(found, key=int)]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return [str(name) for name in found] if isinstance(found, list) else None


def _of_parquet(path: Path, wanted: Sequence[Column]) -> Records:
    file = open_parquet(path)
    names = columns_named(path, wanted, tuple(file.schema_arrow.names), _way_out)
    classes = class_names_of(file.schema_arrow.metadata, names[-1])
    rows: list[Row] = []
    for batch in _batches(path, file, names):
        require_memory(_COPIES * batch.nbytes, f"{path}, {batch.num_rows} rows of {batch.nbytes:,} bytes,")
        for values in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
            place = place_of(path, len(rows))
            texts = [_text(value, name, place) for value, name in zip(values[:-1], names[:-1], strict=True)]
            rows.append(Row(len(rows), (*texts, _label(values[-1], names[-1], place, classes))))
    return Records(names, _some(path, rows), classes)


def _of_lines(path: Path, encoding: str, wanted: Sequence[Column]) -> Records:
    lines = [(n, line) for n, line in enumerate(decoded(path, encoding).split("\n"), 1) if line.strip()]
    columns = tuple(dict.fromkeys(name for n, line in lines for name in record_of(path, n, line)))
    names = columns_named(path, wanted, columns, _way_out)
    rows = []
    for number, line in lines:  # parsed twice: all records at once would take many times the file's size
        record, place = record_of(path, number, line), place_of(path, number)
        rows.append(Row(number, tuple(_text(record.get(name), name, place) for name in names)))
    return Records(names, _some(path, rows))


def _some(path: Path, rows: list[Row]) -> list[Row]:
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def _batches(path: Path, file: Any, names: Sequence[str]) -> Iterator[Any]:
    try:
        yield from file.iter_batches(_AT_ONCE, columns=list(dict.fromkeys(names)))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is no parquet file that can be read ({first_line(error)})")


def record_of(path: Path, number: int, line: str) -> dict[str, Any]:
    """Read a line of jsonl.

    Raises:
        DataError: it is too long, no JSON object, or repeats a name.
    """
    place = place_of(path, number)
    if len(line) >= _LONGEST:
        raise DataError(f"{place} is longer than {_LONGEST:,} characters; one record a line is read")
    try:
        found = json.loads(line, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is no JSON object ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise DataError(f'{place} is no JSON object, such as {{"sentence": "…", "label": "…"}}')
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _text(value: Any, column: str, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise DataError(f"{place}: column {column!r} holds a value of type {type(value).__name__}; text is needed")
    if isinstance(value, str):
        require_whole(value, column, place)
    return str(value)


def require_whole(text: str, column: str, place: str) -> None:
    """Refuse a text with a surrogate, which JSON can name and no tokenizer takes.

    Raises:
        DataError: it has one.
    """
    if _HALF.search(text):
        raise DataError(f"{place}: column {column!r} holds half a character (a surrogate); write it as UTF-8")


def _label(value: Any, column: str, place: str, classes: Sequence[str] | None) -> str:
    """Label of a row, the number of a class by its name."""
    if classes is None or not isinstance(value, int):
        return _text(value, column, place)
    if not 0 <= value < len(classes):
        raise DataError(
            f"{place}: column {column!r} is {value}, none of the {len(classes)} classes that the file names; give it "
            "one, or leave the row out"
        )
    return classes[value]


def _shown(value: Any) -> str:
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():
        return A_PICTURE
    return str(value) if isinstance(value, str | int | float) else ""


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    return not (types.is_binary(kind) or types.is_large_binary(kind) or types.is_nested(kind))


def _is_pictured(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return bool({"bytes", "path"} & {field.name for field in kind})
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _way_out(column: Column) -> str:
    return f"name one in {column.key}"
