"""CIFAR-10 and CIFAR-100 from the folder of their official binary version, or from one .npz file.

https://www.cs.toronto.edu/~kriz/cifar.html: a record is its label bytes (one, or coarse and fine) and 3,072 bytes of
pixels, channel by channel, row by row. The "python version" is pickles, which run code when they are read.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.data.datasets.base import DatasetConfig, LabelledImages, RawData
from edgestill.pipeline.data.datasets.npz import NpzConfig, load_npz
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.foreign import MAX_CONFIG_BYTES, read_bounded
from edgestill.pipeline.free_memory import require_memory
from edgestill.pipeline.frozen import GivenPath, existing_path
from edgestill.pipeline.task import Labels

_PIXELS = 3 * 32 * 32
_CIFAR10 = (tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",), "batches.meta.txt")
_CIFAR100 = (("train.bin",), ("test.bin",), "fine_label_names.txt")


class CifarConfig(DatasetConfig):
    """CIFAR-10 or CIFAR-100: the binary version's folder, or an .npz file."""

    name: Literal["cifar"] = "cifar"
    path: GivenPath = Field(
        description="folder with data_batch_1.bin … (CIFAR-10) or train.bin (CIFAR-100), or an .npz file"
    )
    labels: Labels | None = Field(
        None, description="class names in order; null takes the folder's, or 0, 1, 2, … for an .npz file"
    )

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        firsts = (Path(given).expanduser() / train[0] for train, _, _ in (_CIFAR10, _CIFAR100))
        return {"path": given} if any(first.is_file() for first in firsts) else None

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_path(path, info)


def load_cifar(config: CifarConfig) -> RawData:
    """Read the records of all batches, or an .npz file.

    Raises:
        DataError: no CIFAR files in the folder, files missing or of a wrong size, labels outside the classes.
    """
    if not config.path.is_dir():
        return load_npz(NpzConfig.model_validate(config.model_dump(exclude={"name"})))
    folder = config.path
    known = [parts for parts in (_CIFAR10, _CIFAR100) if (folder / parts[0][0]).is_file()]
    if not known:
        hint = "; it holds the python version, which is pickles: fetch the binary version" * any(
            (folder / name).exists() for name in ("data_batch_1", "train")
        )
        raise DataError(f"{folder} has neither data_batch_1.bin nor train.bin of CIFAR's binary version{hint}")
    train, test, names = known[0]
    label_bytes = 1 if known[0] is _CIFAR10 else 2
    labels = config.labels or _names(folder / names)
    read = [_records([folder / name for name in files], label_bytes, len(labels)) for files in (train, test)]
    return RawData(train=read[0], test=read[1], labels=labels)


def _names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise DataError(f"no {path.name} in {path.parent}; name the classes in data.labels")
    text = read_bounded(path, MAX_CONFIG_BYTES).decode("utf-8", "replace")
    labels = tuple(line.strip() for line in text.splitlines())
    return tuple(label for label in labels if label)


def _records(paths: list[Path], label_bytes: int, classes: int) -> LabelledImages:
    size, tables = label_bytes + _PIXELS, []
    for path in paths:
        if not path.is_file():
            raise DataError(f"no {path.name} in {path.parent}; the binary version has it: fetch it again")
        length = path.stat().st_size
        if length == 0 or length % size:
            raise DataError(f"{path} has {length:,} bytes, which is no whole number of records of {size:,}")
        require_memory(4 * length, f"{path}, of {length:,} bytes,")
        data = np.fromfile(path, dtype=np.uint8)
        tables.append(data.reshape(-1, size))
        highest = int(tables[-1][:, label_bytes - 1].max())
        if highest >= classes:
            raise DataError(f"{path} has label {highest}, and there are {classes} classes, 0 to {classes - 1}")
    table = np.concatenate(tables)
    images = np.ascontiguousarray(table[:, label_bytes:]).reshape(-1, 3, 32, 32)
    return LabelledImages(images, table[:, label_bytes - 1].astype(np.int64))
