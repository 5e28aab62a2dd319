"""Pictures listed in a csv or tsv file: a column of paths, a column of labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.data.datasets.base import RawData
from edgestill.pipeline.data.datasets.given import SPLIT, TABLES, columns_of, part_of
from edgestill.pipeline.data.datasets.photos import Part, PhotoConfig, load_photos, path_below
from edgestill.pipeline.data.datasets.table import Column, Format, Row, default_delimiter, read_columns
from edgestill.pipeline.data.rows import files_content
from edgestill.pipeline.errors import DataError, nearest
from edgestill.pipeline.frozen import GivenPath, existing_file


class CsvConfig(PhotoConfig):
    """Pictures listed in a csv or tsv file, by a column of paths."""

    name: Literal["csv"] = "csv"
    path: GivenPath = Field(description="csv or tsv file with a row a picture")
    image_column: str = Field("image", description="column of the pictures' paths")
    label_column: str = Field("label", description="column of the class labels")
    split_column: str | None = Field(
        None, description="column that says train, val or test; null splits all rows by seed"
    )
    root: GivenPath | None = Field(
        None, description="folder that the paths are relative to and must stay in; null takes the file's own"
    )
    columns: tuple[str, ...] | None = Field(
        None, description="column names for a file without a header; null reads them from the first line"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="cell delimiter; null takes a comma in .csv, else a tab"
    )
    encoding: str = Field("utf-8", description="text encoding of the file")

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        path = Path(given).expanduser()
        if path.suffix not in TABLES or not path.is_file():
            return None
        found = columns_of(path)
        keys = {"path": given, "image_column": found.content, "label_column": found.label}
        keys |= {k: v for k, v in (("split_column", found.split), ("delimiter", found.delimiter)) if v is not None}
        return keys if found.is_of_images else None

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_file(path, info)

    @field_validator("root")
    @classmethod
    def _root_exists(cls, root: Path | None, info: ValidationInfo) -> Path | None:
        if root is None or not (info.context or {}).get("check_files"):
            return root
        if not root.is_dir():
            raise ValueError(f"no folder at {root}")
        return root.absolute()


def load_csv(config: CsvConfig) -> RawData:
    """Read the table, and decode the pictures that it lists.

    Raises:
        DataError: columns are missing, cells empty, paths lead out of the folder, or pictures cannot be read.
    """
    wanted = [Column(config.image_column, "data.image_column"), Column(config.label_column, "data.label_column")]
    if config.split_column:
        wanted.append(Column(config.split_column, "data.split_column"))
    names, rows = read_columns(config.path, Format(config.encoding, config.delimiter, config.columns), wanted)
    for row in rows:
        if not all(cell.strip() for cell in row.cells):
            raise DataError(f"{config.path}, line {row.line}: a cell of {', '.join(names)} is empty; fill or drop it")
    root = config.root or config.path.parent
    by_part: dict[str, list[Row]] = {}
    for row in rows:
        by_part.setdefault(_part_of(config, row), []).append(row)
    if "train" not in by_part:
        raise DataError(f"{config.path}: no row of column {config.split_column!r} says train")
    paths = {part: [_inside(config.path, root, row) for row in found] for part, found in by_part.items()}
    parts = {part: _part(found, paths[part]) for part, found in by_part.items()}
    listed = [path for found in paths.values() for path in found]
    content = files_content(root, listed, [str(path) for path in listed])
    hint = f"paths are relative to {root}, data.root sets another folder"
    return load_photos(config, str(config.path), parts, content, cautions=_unread(config), hint=hint)


def _unread(config: CsvConfig) -> list[str]:
    """Return a caution if a column seems to say which part a row is of, and is not read."""
    with config.path.open(encoding=config.encoding) as file:
        cells = file.readline().split(config.delimiter or default_delimiter(config.path))
    header = config.columns or [cell.strip('\ufeff" \n') for cell in cells]
    name = next((cell for cell in header if cell.lower() == SPLIT), None)
    if config.split_column is not None or name is None:
        return []
    return [
        f"{config.path}: its column {name!r} is not read; set data.split_column to it if it says train, val or test"
    ]


def _part(rows: Sequence[Row], paths: Sequence[Path]) -> Part:
    return Part([row.cells[0] for row in rows], [row.cells[1].strip() for row in rows], lambda: iter(paths))


def _part_of(config: CsvConfig, row: Row) -> str:
    if config.split_column is None:
        return "train"
    found = part_of(row.cells[2])
    if found is None:
        raise DataError(
            f"{config.path}, line {row.line}: {row.cells[2]!r} in column {config.split_column!r} is no part; "
            f"{nearest(row.cells[2], ('train', 'val', 'test'))}"
        )
    return found


def _inside(table: Path, root: Path, row: Row) -> Path:
    try:
        return path_below(root, row.cells[0].strip())
    except DataError as error:
        raise DataError(f"{table}, line {row.line}: {error}") from None
