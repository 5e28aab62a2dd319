"""Texts and their labels from tables, by names of columns: a folder of parts, or one file to be split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.data.datasets.base import DatasetConfig, LabelledTexts, RawData
from edgestill.pipeline.data.datasets.given import SHARD, TABLES_OF_TEXTS, columns_of, parts_of
from edgestill.pipeline.data.datasets.records import ENDINGS, Records, place_of, read_records
from edgestill.pipeline.data.datasets.table import Column, Format, read_columns
from edgestill.pipeline.data.tokens import TokenizerConfig
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.frozen import GivenPath, existing_path
from edgestill.pipeline.task import Labels

_MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null")
_MOST_PROBLEMS = 10
_ENDINGS = (".tsv", ".csv", *ENDINGS)


class TextConfig(DatasetConfig):
    """Sentences or documents in tsv, csv, parquet or jsonl files."""

    kind: ClassVar[str] = "text"

    name: Literal["text"] = "text"
    path: GivenPath = Field(
        description="folder of train, validation and test files, or one file to carve all three from"
    )
    text_column: str = Field(
        "sentence",
        description="column of the texts to classify; sentence also stands for the only one beside the labels",
    )
    label_column: str = Field("label", description="column of the class labels")
    columns: tuple[str, ...] | None = Field(
        None, description="column names for tsv and csv files without a header; null reads them from the first line"
    )
    labels: Labels | None = Field(
        None, description="class labels in order, spelt as in the column; null sorts those found"
    )
    train: str = Field("train", description="training file in the folder; its ending may be left out")
    validation: str | None = Field(
        "dev", description="validation file in the folder; null carves it from the training file"
    )
    test: str | None = Field("test", description="test file in the folder; null carves it from the training file")
    test_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="share of the training texts set aside for testing if there is no test file"
    )
    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="cell delimiter; null takes a comma in .csv, in other files a tab, without quoting",
    )
    encoding: str = Field("utf-8", description="text encoding of the files")
    empty: Literal["refuse", "drop"] = Field(
        "refuse",
        description="treatment of rows whose text or label is empty or NA; drop leaves them out and counts them",
    )
    max_length: int = Field(64, ge=1, le=4096, description="maximum length of a text in tokens; longer texts are cut")
    tokenizer: TokenizerConfig = TokenizerConfig()

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        path, parts = Path(given).expanduser(), parts_of(given)
        if parts is None and not (path.suffix in TABLES_OF_TEXTS and path.is_file()):
            return None
        found = columns_of(path if parts is None else parts.train)
        if found.is_of_images:
            return None
        files = {} if parts is None else {"validation": parts.validation, "test": parts.test}
        keys = {"path": given, "text_column": found.content, "label_column": found.label, **files}
        return keys if found.delimiter is None else keys | {"delimiter": found.delimiter}

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_path(path, info)

    @field_validator("train", "validation", "test")
    @classmethod
    def _is_inside(cls, name: str | None) -> str | None:
        if name is not None and (Path(name).is_absolute() or ".." in Path(name).parts):
            raise ValueError(f"{name!r} leads out of data.path; name a file in that folder")
        return name

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError:
            raise ValueError(f"no encoding {encoding!r}; utf-8 and latin-1 are the usual ones") from None
        return encoding

    @property
    def has_own_tokenizer(self) -> bool:
        return self.tokenizer != TokenizerConfig()

    def with_tokenizer(self, path: Path) -> Self:
        return self.model_copy(update={"tokenizer": TokenizerConfig(file=path)})


class _Rows(NamedTuple):
    """Rows of a part, from all of its files."""

    rows: list[tuple[Path, int, str, str]]  # file, line, text, label
    dropped: int
    classes: tuple[str, ...] | None  # in order, where the files name them


def load_text(config: TextConfig) -> RawData:
    """Read the files and check every row.

    Raises:
        DataError: files, columns, texts or labels are missing, with their lines; or there is one class only.
    """
    files = _files(config)
    read = {part: _rows(paths, config) for part, paths in files.items()}
    path, train = files["train"][0], read["train"]
    found = sorted({label for *_, label in train.rows}, key=_in_order)
    if not found:
        raise DataError(f"{path}: every row lacks its text or its label; data.empty drops such rows")
    if len(found) < 2:
        raise DataError(
            f"{path}: every label in column {config.label_column!r} is {found[0]!r}; "
            "a classifier needs two or more classes"
        )
    labels = config.labels or train.classes or tuple(found)
    absent = [label for label in labels if label not in found]
    if absent:
        whose = "data.labels" if config.labels else "the classes that the file names; set data.labels"
        raise DataError(f"{path}: no text has the label {absent[0]!r} of {whose}; there are {_few(found)}")
    parts = {part: _labelled(table.rows, labels) for part, table in read.items()}
    test, validation = parts.get("test"), parts.get("validation")
    dropped = sum(table.dropped for table in read.values())
    return RawData(parts["train"], test, labels, validation, test_fraction=config.test_fraction, dropped=dropped)


def _files(config: TextConfig) -> dict[str, list[Path]]:
    if not config.path.is_dir():
        return {"train": [config.path]}
    names = {"train": config.train, "validation": config.validation, "test": config.test}
    return {part: _find(config.path, name, part) for part, name in names.items() if name is not None}


def _find(folder: Path, name: str, part: str) -> list[Path]:
    """Find a part's file, or its numbered parquet files."""
    candidates = [folder / name] if Path(name).suffix else [folder / f"{name}{ending}" for ending in _ENDINGS]
    for path in candidates:
        if path.is_file():
            return [path]
    numbered = sorted(path for path in folder.glob("*-of-*.parquet") if SHARD.sub("", path.stem) == name)
    if numbered:
        return numbered
    there = sorted(path.name for path in folder.iterdir() if path.suffix in _ENDINGS)
    carve = "" if part == "train" else ", or null to carve it from train"
    *others, last = (path.name for path in candidates)
    raise DataError(
        f"no {', '.join(others)}{' or ' if others else ''}{last} in {folder}, which has {_few(there) or 'no table'}; "
        f"name the file in data.{part}{carve}"
    )


def _rows(paths: Sequence[Path], config: TextConfig) -> _Rows:
    """Read all rows of a part; missing cells of a file are reported together."""
    form = Format(config.encoding, config.delimiter, config.columns)
    found, dropped = list[tuple[Path, int, str, str]](), 0
    classes: tuple[str, ...] | None = None
    for path in paths:
        read = _read(path, form, _columns(config))
        classes = tuple(read.classes) if read.classes else classes
        problems = []
        for line, (text, label) in read.rows:
            if config.empty == "drop" and {text.strip(), label.strip()} & set(_MISSING):
                dropped += 1
                continue
            for column, cell in zip(read.names, (text, label), strict=True):
                if cell.strip() in _MISSING:
                    problems.append(f"{place_of(path, line)}: column {column!r} is {cell.strip() or 'empty'}")
            found.append((path, line, text.strip(), label.strip()))
        if problems:
            more = [f"and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
            raise DataError(
                *problems[:_MOST_PROBLEMS], *more, "fill these cells, or set data.empty to drop and leave the rows out"
            )
    return _Rows(found, dropped, classes)


def _read(path: Path, form: Format, wanted: Sequence[Column]) -> Records:
    return read_records(path, form, wanted) if path.suffix in ENDINGS else Records(*read_columns(path, form, wanted))


def _columns(config: TextConfig) -> tuple[Column, Column]:
    is_default = config.text_column == TextConfig.model_fields["text_column"].default
    text = Column(config.text_column, "data.text_column", is_default)
    return text, Column(config.label_column, "data.label_column")


def _labelled(rows: Sequence[tuple[Path, int, str, str]], labels: tuple[str, ...]) -> LabelledTexts:
    numbers = {label: number for number, label in enumerate(labels)}
    for path, line, _, label in rows:
        if label not in numbers:
            raise DataError(
                f"{place_of(path, line)}: label {label!r} is none of the {len(labels)} classes ({_few(labels)})"
            )
    return LabelledTexts(
        tuple(text for *_, text, _ in rows), np.array([numbers[label] for *_, label in rows], np.int64)
    )


def _in_order(label: str) -> tuple[bool, int, str]:
    """Sort key: whole numbers by their value, before other labels by the alphabet."""
    is_number = label.isascii() and label.isdigit()
    return not is_number, int(label) if is_number else 0, label


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
