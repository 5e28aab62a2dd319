"""Pictures in parquet files: a column of their bytes, of Hugging Face's images, or of paths; read batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.data.datasets.base import RawData
from edgestill.pipeline.data.datasets.given import SPLIT, part_of
from edgestill.pipeline.data.datasets.photos import Part, PhotoConfig, as_labels, load_photos, source_of
from edgestill.pipeline.data.datasets.records import class_names_of, open_parquet
from edgestill.pipeline.data.rows import Source, files_content
from edgestill.pipeline.errors import DataError, nearest
from edgestill.pipeline.frozen import GivenPath, digest, existing_path

_AT_ONCE = 64  # rows in memory


class ParquetConfig(PhotoConfig):
    """Pictures in a parquet file, or in a folder of train, validation and test files."""

    name: Literal["parquet"] = "parquet"
    path: GivenPath = Field(
        description="parquet file, or folder of files whose names begin with train, validation or test"
    )
    image_column: str = Field("image", description="column of the pictures: bytes, {bytes, path}, or paths")
    label_column: str = Field("label", description="column of the class labels")
    root: GivenPath | None = Field(
        None, description="folder that paths are relative to and must stay in; null takes the file's own"
    )

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        path = Path(given).expanduser()
        is_one = path.suffix == ".parquet" and path.is_file()
        return {"path": given} if is_one or any(path.glob("train*.parquet")) else None

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_path(path, info)


def load_parquet(config: ParquetConfig) -> RawData:
    """Read the labels, and decode the pictures.

    Raises:
        DataError: files or columns are missing, a label is missing, or pictures cannot be read.
    """
    files = _files(config.path)
    root = config.root or (config.path if config.path.is_dir() else config.path.parent)
    opened = {part: [open_parquet(path) for path in paths] for part, paths in files.items()}
    for part, each in files.items():
        for path, file in zip(each, opened[part], strict=True):
            _require_columns(path, file.schema_arrow.names, (config.image_column, config.label_column))
    names = class_names_of(opened["train"][0].schema_arrow.metadata, config.label_column)
    parts = {
        part: _part(config, root, files[part], each, names) for part, each in opened.items()
    }  # fmt: skip
    paths = [path for each in files.values() for path in each]
    content = digest(files_content(root, paths, [str(path) for path in paths]), config.image_column)
    return load_photos(config, str(config.path), parts, content, names, _unread(config.path, opened["train"][0]))


def _unread(path: Path, opened: Any) -> list[str]:
    """Return a caution if a column seems to say which part a row is of: files say that here."""
    name = next((name for name in opened.schema_arrow.names if name.lower() == SPLIT), None)
    if name is None:
        return []
    return [f"{path}: its column {name!r} is not read; write the rows of train, validation and test to files so named"]


def _files(path: Path) -> dict[str, list[Path]]:
    if not path.is_dir():
        return {"train": [path]}
    found: dict[str, list[Path]] = {}
    for file in sorted(path.glob("*.parquet")):
        part = part_of(file.stem.replace("_", "-").split("-")[0].split(".")[0])
        if part is None:
            raise DataError(f"{file} does not begin with train, validation or test; rename it, or move it away")
        found.setdefault(part, []).append(file)
    if "train" not in found:
        raise DataError(f"{path} has no file such as train.parquet or train-00000-of-00002.parquet")
    return found


def _require_columns(path: Path, known: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise DataError(
                f"{path} has no column {name!r}; {nearest(name, known)}; data.image_column and data.label_column name "
                "them, and texts are of the kind text"
            )


def _part(
    config: ParquetConfig, root: Path, paths: Sequence[Path], opened: Sequence[Any], names: Sequence[str] | None
) -> Part:
    found: list[str] = []
    rows: list[str] = []
    for path, file in zip(paths, opened, strict=True):
        values = file.read([config.label_column]).column(0).to_pylist()
        found += as_labels(values, names, str(path))
        rows += [f"{path.name}:{row}" for row in range(len(values))]
    return Part(rows, found, _reader(opened, config.image_column, root))


def _reader(opened: Sequence[Any], column: str, root: Path) -> Callable[[], Iterator[Source]]:
    def read() -> Iterator[Source]:
        for file in opened:
            for batch in file.iter_batches(_AT_ONCE, columns=[column]):
                for value in batch.column(0):
                    yield source_of(value.as_py(), root)

    return read
