"""Looks at a person's path, for a data set's `settings_for`: folders of classes, parts of tables, columns."""

import csv
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from edgestill.pipeline.data.datasets.records import A_PICTURE, ENDINGS, first_records
from edgestill.pipeline.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
TABLES = (".tsv", ".csv", ".txt")
TABLES_OF_TEXTS = (*TABLES, *ENDINGS)
SPLIT = "split"  # usual name of a column that says train, val or test
SHARD = re.compile(r"-\d+-of-\d+$")  # end of the name of one parquet file of several
PARTS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_TRAIN, _VALIDATION, _TEST = "train", ("val", "valid", "validation", "dev"), "test"
_LABELS = ("label", "labels", "class", "category", "target", "sentiment", "stars", "y")
_NOBODYS = ("__MACOSX", "@eaDir")
_LONGEST = 2**16  # characters of a first line
_ROWS = 200  # of a table that are looked at


class Columns(NamedTuple):
    """Columns of a table, found by their cells."""

    content: str
    label: str
    is_of_images: bool  # the content's cells are paths of images that are there, relative to the table's folder
    split: str | None  # its cells say train, val or test; None: there is no such column
    delimiter: str | None  # of the cells; None: the usual one for the file's ending


class Parts(NamedTuple):
    """Tables in a folder, by part; None where there is none."""

    train: Path
    validation: str | None
    test: str | None


def is_hidden(name: str) -> bool:
    """True for what no person put there: names that begin with a dot, and folders of archivers and file servers."""
    return name.startswith(".") or name in _NOBODYS


def part_of(name: str) -> str | None:
    """Return the part of a data set that a word names, such as `validation` for `val`; None for another word."""
    return PARTS.get(name.strip().lower())


def has_folders(given: str) -> bool:
    """True if it is a folder with folders in it, as of images by class."""
    path = Path(given).expanduser()
    return path.is_dir() and any(inner.is_dir() and not is_hidden(inner.name) for inner in path.iterdir())


def parts_of(given: str) -> Parts | None:
    """Find the tables of a folder with a training table; None for anything else."""
    path = Path(given).expanduser()
    if not path.is_dir():
        return None
    tables = {SHARD.sub("", table.stem): table for table in sorted(path.iterdir()) if table.suffix in TABLES_OF_TEXTS}
    if _TRAIN not in tables:
        return None
    validation = next((name for name in _VALIDATION if name in tables), None)
    return Parts(tables[_TRAIN], validation, _TEST if _TEST in tables else None)


def columns_of(path: Path) -> Columns:
    """Find the columns of content and of labels by their cells.

    A column named as labels are is one; else the one of fewest different cells is. The longest of the others is the
    content.

    Raises:
        DataError: there are no two columns, or the first line does not name them.
    """
    delimiter = None if path.suffix in ENDINGS else _other_delimiter(path)
    head, body = first_records(path, _ROWS) if path.suffix in ENDINGS else _first_rows(path, delimiter)
    if len(body) < 2 or len(head) < 2:
        below = "" if path.suffix in ENDINGS else " below a first line with their names"
        raise DataError(f"{path} has no two columns{below}")
    body = [row for row in body if len(row) == len(head)]
    cells = {name: [row[place] for row in body] for place, name in enumerate(head)}
    named = next((name for name in head if name.strip().lower() in _LABELS), None)
    label = named or min(head, key=lambda name: len(set(cells[name])))
    others = [name for name in head if name != label]
    pictured = next((name for name in others if _is_of_images(cells[name], path.parent)), None)
    content = pictured or max(others, key=lambda name: sum(map(len, cells[name])))
    if label in cells[label] and (pictured or " " in content):
        raise DataError(f"{path}: its first line is a row like the others; add one before it, such as text,label")
    split = next((name for name in others if name != content and _is_of_parts(name, cells[name])), None)
    return Columns(content, label, pictured is not None, split, delimiter)


def _is_of_parts(name: str, cells: Sequence[str]) -> bool:
    return name.strip().lower() == SPLIT and all(part_of(cell) is not None for cell in cells)


class _Unquoted(csv.excel):
    """Cells as they stand, quotation marks included."""

    quoting = csv.QUOTE_NONE


def _other_delimiter(path: Path) -> str | None:
    """Return the mark that parts the first line's cells, where it is not the usual one for the file's ending.

    Raises:
        DataError: it is no text of an encoding that ASCII is a part of.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        line = file.readline(_LONGEST)
    if "\0" in line:
        raise DataError(f"{path} is no text in UTF-8; save it as such, or name its encoding in data.encoding")
    usual = "," if path.suffix.lower() == ".csv" else "\t"
    return None if usual in line else next((mark for mark in ";\t|," if mark in line), None)


def _first_rows(path: Path, delimiter: str | None) -> tuple[list[str], list[list[str]]]:
    """The first line of a table, and the rows below it."""
    delimiter = delimiter or ("," if path.suffix.lower() == ".csv" else "\t")
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, _Unquoted if delimiter == "\t" else csv.excel, delimiter=delimiter)
        rows = list(islice(reader, _ROWS + 1))
    return rows[0] if rows else [], rows[1:]


def _is_of_images(cells: Sequence[str], folder: Path) -> bool:
    if A_PICTURE in cells:
        return True
    some = [Path(cell) for cell in cells[:10]]
    return bool(some) and all(path.suffix.lower() in PICTURES and (folder / path).exists() for path in some)
