"""Settings and loading that all kinds of data made of pictures share: labels, unreadable files, shapes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BeforeValidator, Field

from edgestill.pipeline.data.datasets.base import DatasetConfig, LabelledImages, RawData
from edgestill.pipeline.data.rows import Fit, Pictures, Rows, Source, rows_of
from edgestill.pipeline.errors import DataError, nearest
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.task import Labels

GIVEN = "given"  # folder of the cache: data given as Python objects
_MOST_NAMED = 5


def _a_size(size: Any) -> Any:
    sides = list(size) if isinstance(size, list | tuple) else [size]
    if size is None or (len(sides) in (1, 2) and all(type(n) is int for n in sides)):
        return size
    raise ValueError(f"{size!r} is no size; write a side or [height, width], such as 96 or [96, 64]")


Side = Annotated[int, Field(ge=1, le=4096)]
_LONGEST = 4096  # characters of a path


class PhotoConfig(DatasetConfig):
    """Settings of every kind of data made of pictures."""

    size: Annotated[Side | tuple[Side, Side] | None, BeforeValidator(_a_size)] = Field(
        None,
        description="side of the images in pixels, or [height, width]; null keeps one size of up to 256 that all "
        "pictures have, or else takes a side near their median, 224 at most",
    )
    resize: Literal["crop", "pad", "stretch"] = Field(
        "crop",
        description="crop resizes the shorter side and cuts the rest off, pad resizes the longer one and fills with "
        "black, stretch changes proportions",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 for grey, 3 for colour; null takes 1 if all pictures are stored as grey"
    )
    labels: Labels | None = Field(None, description="class names in the order of the logits; null sorts those found")
    max_unreadable: float = Field(
        0.01, ge=0, lt=1, description="largest share of pictures that may be unreadable; they are left out and named"
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="share of the training pictures set aside for testing if there is no test part"
    )

    @property
    def fit(self) -> Fit:
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        return Fit(size, self.channels, self.resize)


class Part(NamedTuple):
    """Pictures of one part of a data set, and their labels."""

    names: Sequence[str]
    labels: Sequence[str]
    sources: Callable[[], Iterable[Source]]


def load_photos(
    config: PhotoConfig,
    where: str,
    parts: Mapping[str, Part],
    content: str,
    labels: Sequence[str] | None = None,
    cautions: Sequence[str] = (),
    hint: str = "",
) -> RawData:
    """Decode the pictures, or find them in the cache, and put the parts of a data set together.

    Args:
        where: the data for people, the beginning of errors.
        parts: `train`, and perhaps `validation` and `test`.
        content: digest of all that determines the pictures.
        labels: all class names in order; None: sorted by `in_order`.
        hint: way out of unreadable pictures, the end of a sentence.

    Raises:
        DataError: too many pictures are unreadable, or labels do not match.
    """
    names = class_names(config.labels or labels, parts["train"].labels, where)
    rows = rows_of(joined(parts, content), config.fit)
    return raw_of(config, where, parts, rows, names, cautions, hint)


def raw_of(
    config: PhotoConfig,
    where: str,
    parts: Mapping[str, Part],
    rows: Rows,
    names: tuple[str, ...],
    cautions: Sequence[str] = (),
    hint: str = "",
) -> RawData:
    """Put the parts of a data set together from the rows of all of them.

    Raises:
        DataError: too many pictures are unreadable, or a label is no class.
    """
    unreadable = _told(config, where, parts, rows, hint)
    numbers = {label: number for number, label in enumerate(names)}
    found, first = {}, 0
    for part, (of_part, spelt, _) in parts.items():
        targets = np.array([_number(label, numbers, where, name) for name, label in zip(of_part, spelt, strict=True)])
        found[part] = _taken(rows, first, of_part, targets.astype(np.int64))
        first += len(of_part)
    counts = np.bincount(found["train"].targets, minlength=len(names))
    if not counts.all():
        lacking = names[int(np.argmin(counts))]
        raise DataError(f"{where}: class {lacking!r} has no picture to train with; add some, or leave the class out")
    return RawData(
        found["train"], found.get("test"), names, found.get("validation"),
        test_fraction=config.test_fraction, cautions=(*cautions, *unreadable, *rows.notes),
    )  # fmt: skip


def class_names(given: Sequence[str] | None, found: Iterable[str], where: str) -> tuple[str, ...]:
    """Return the class names in order: those given, or those found.

    Raises:
        DataError: there are fewer than two, or a given one has no example.
    """
    present = set(found)
    names = tuple(given) if given is not None else tuple(sorted(present, key=in_order))
    if len(names) < 2:
        one = f"every label is {names[0]!r}" if names else "there is no example"
        raise DataError(f"{where}: {one}; a classifier needs two or more classes")
    absent = [name for name in names if name not in present]
    if absent:
        raise DataError(
            f"{where}: class {absent[0]!r} has no example; {nearest(absent[0], present)}; data.labels names the "
            "classes to take, in order"
        )
    return names


def in_order(label: str) -> tuple[bool, int, str]:
    """Sort key: whole numbers by their value, before other labels by the alphabet."""
    is_number = label.isascii() and label.isdigit()
    return not is_number, int(label) if is_number else 0, label


def as_labels(values: Iterable[Any], names: Sequence[str] | None, where: str) -> list[str]:
    """Return labels as text, numbers of classes by their names."""
    found = []
    for row, value in enumerate(values):
        if isinstance(value, dict | list):
            raise DataError(
                f"{where}, row {row}: the label {str(value)[:80]} is no name and no number; set data.label_column to a "
                "column of one class a row"
            )
        if value is None or value != value or (names and isinstance(value, int) and not 0 <= value < len(names)):
            raise DataError(f"{where}, row {row}: the label is {value!r}; give it a class, or leave the row out")
        found.append(names[value] if names and isinstance(value, int) else str(value))
    return found


def source_of(value: Any, root: Path | None) -> Source:
    """Return a cell of a column of pictures: bytes, a mapping of bytes and path, or a path below `root`.

    Raises:
        DataError: a path leads out of `root`, or it is none of these.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None or isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise DataError(
            f"the column of pictures holds a {type(value).__name__}; bytes of picture files, or their paths, are "
            "needed: arrays of pixels are read from .npz files"
        )
    return Path(value) if root is None else path_below(root, value)


def path_below(root: Path, given: str) -> Path:
    """Return the path of a picture below a folder.

    Raises:
        DataError: it leads out, or is no path.
    """
    if "\0" in given or len(given) > _LONGEST:
        raise DataError(
            f"{given[:40]!r}…, of {len(given):,} characters, is no path; bytes of a picture are kept as bytes, not text"
        )
    path = root / given
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{given!r} leads out of {root}; data.root names the folder that the pictures are in")
    return path


def joined(parts: Mapping[str, Part], content: str) -> Pictures:
    """Return the pictures of all parts, one after the other."""
    names = list(chain.from_iterable(part.names for part in parts.values()))

    def sources() -> Iterator[Source]:
        return chain.from_iterable(part.sources() for part in parts.values())

    return Pictures(names, sources, digest(content, [(part, len(found.names)) for part, found in parts.items()]))


def _told(config: PhotoConfig, where: str, parts: Mapping[str, Part], rows: Rows, hint: str) -> list[str]:
    """Return a caution about the unreadable pictures.

    Raises:
        DataError: there are more than configured.
    """
    if not rows.unreadable:
        return []
    names = list(chain.from_iterable(part.names for part in parts.values()))
    bad, count = len(rows.unreadable), len(names)
    few = [f"{names[at]} ({reason})" for at, reason in list(rows.unreadable.items())[:_MOST_NAMED]]
    more = f" and {bad - len(few):,} more" if bad > len(few) else ""
    said = f"{where}: {bad:,} of {count:,} pictures cannot be read: {', '.join(few)}{more}"
    if bad > config.max_unreadable * count:
        raise DataError(
            f"{said}; data.max_unreadable allows {config.max_unreadable:.2%}: mend or remove them, or raise it"
            + (f"; {hint}" if hint else "")
        )
    return [f"{said}; they are left out"]


def _number(label: str, numbers: Mapping[str, int], where: str, name: str) -> int:
    if label not in numbers:
        raise DataError(f"{where}: {name} has the label {label!r}, which is no class; {nearest(label, numbers)}")
    return numbers[label]


def _taken(rows: Rows, first: int, names: Sequence[str], targets: np.ndarray) -> LabelledImages:
    """Return the readable pictures of a part, the first of which has this number among all pictures."""
    chosen = np.flatnonzero((rows.kept >= first) & (rows.kept < first + len(names)))
    own = rows.kept[chosen] - first
    images = rows.images.select(torch.from_numpy(chosen))
    return LabelledImages(images, targets[own], tuple(names[at] for at in own))
