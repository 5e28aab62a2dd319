"""The settings of `data` for what a person has: a folder, a table, an archive, a function, a name."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgestill.pipeline.data.datasets import DATASETS
from edgestill.pipeline.errors import ConfigError

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
_TABLES = (".tsv", ".csv", ".txt")
_PARTS = ("train", "val", "valid", "validation", "dev", "test")
_LABELS = ("label", "labels", "class", "category", "target", "sentiment", "stars", "y")
_ROWS = 200  # of a table that are looked at


def data_for(given: str) -> dict[str, Any]:
    """Return the settings of `data` for a path, a `module:function`, an `hf:ID` or the name of a data set.

    Raises:
        ConfigError: nothing is recognised there; says what would be.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        return _of_folder(path, given)
    if path.is_file():
        return _of_file(path, given)
    if given in DATASETS:
        return {"name": given}
    if given.startswith("hf:"):
        return _known("huggingface", {"path": given[3:]}, given)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", given):
        return _known("python", {"path": given, "function": given}, given)
    raise ConfigError(
        [
            f"--data: there is nothing at {given}; give a folder with a folder of images for each class, an .npz, "
            ".csv, .tsv or .parquet file, package.module:function, or digits"
        ]
    )


def _of_folder(path: Path, given: str) -> dict[str, Any]:
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    if any(name.endswith(".bin") for name in names):
        return _known("cifar", {"path": given}, given)
    tables = [name for name in names if Path(name).suffix in _TABLES and Path(name).stem in _PARTS]
    if tables:
        parts = {Path(name).stem for name in tables}
        chosen = next((name for name in _PARTS[1:5] if name in parts), None)
        own = {"validation": chosen, "test": "test" if "test" in parts else None}
        first = next((name for name in tables if Path(name).stem == "train"), tables[0])
        return {**_of_table(path / first, given), **own}
    if any((path / name).is_dir() for name in names):
        return _known("folder", {"path": given}, given)
    pictures = sum(Path(name).suffix.lower() in _PICTURES for name in names)
    unsorted = f"{pictures} images and no folder; put the images of each class in a folder of its own"
    raise ConfigError(
        [f"--data: {given} holds {unsorted if pictures else 'neither folders of images nor train.csv or train.tsv'}"]
    )


def _of_file(path: Path, given: str) -> dict[str, Any]:
    ending = path.suffix.lower()
    if ending == ".npz":
        return {"name": "npz", "path": given}
    if ending == ".parquet":
        return _known("parquet", {"path": given}, given)
    if ending in _TABLES:
        return _of_table(path, given)
    raise ConfigError([f"--data: {given} is no .npz, .csv, .tsv or .parquet file, and nothing else is read here"])


class _Columns(NamedTuple):
    content: str
    label: str
    is_of_images: bool


def _of_table(path: Path, given: str) -> dict[str, Any]:
    found = _columns(path)
    kind = "csv" if found.is_of_images else "text"
    keys = {"text_column": found.content, "image_column": found.content, "label_column": found.label}
    return _known(kind, {"path": given, **keys, "column": found.content}, given)


def _columns(path: Path) -> _Columns:
    """Find the columns of content and of labels by their cells.

    A column named as labels are is one; else the one of fewest different cells is. The longest of the others is the
    content.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = list(_first_rows(file, "," if path.suffix.lower() == ".csv" else "\t"))
    if len(rows) < 3 or len(rows[0]) < 2:
        raise ConfigError([f"--data: {path} has no two columns below a first line with their names"])
    head, body = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    cells = {name: [row[place] for row in body] for place, name in enumerate(head)}
    label = next((name for name in head if name.strip().lower() in _LABELS), None) or min(
        head, key=lambda name: len(Counter(cells[name]))
    )
    content = max((name for name in head if name != label), key=lambda name: sum(map(len, cells[name])))
    pictured = next((name for name in head if name != label and _is_of_images(cells[name], path.parent)), None)
    return _Columns(pictured or content, label, pictured is not None)


def _first_rows(file: Iterable[str], delimiter: str) -> Iterable[list[str]]:
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    for number, row in enumerate(csv.reader(file, delimiter=delimiter, quoting=quoting)):
        if number > _ROWS:
            return
        yield row


def _is_of_images(cells: Sequence[str], folder: Path) -> bool:
    some = [Path(cell) for cell in cells[:10]]
    return bool(some) and all(path.suffix.lower() in _PICTURES and (folder / path).exists() for path in some)


def _known(kind: str, keys: dict[str, Any], given: str) -> dict[str, Any]:
    """Keep the keys that the kind of data has.

    Raises:
        ConfigError: this version does not read that kind.
    """
    if kind not in DATASETS:
        kinds = ", ".join(DATASETS)
        raise ConfigError([f"--data: {given} would be data of kind {kind!r}, not known here; known: {kinds}"])
    fields = DATASETS[kind][0].model_fields
    return {"name": kind, **{key: value for key, value in keys.items() if key in fields}}
