"""Images in files of equal rows: read row by row when a batch asks for them, so that none of them stays in memory.

A file holds N rows of C x H x W bytes, without a header; files beside it say the shape and each row's digest
(pipeline/data/rows.py).
"""

# N images, C channels, H W height and width

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgestill.pipeline.errors import DataError


class RowFile(NamedTuple):
    """A file of rows, and the digest of each row's image."""

    path: Path
    digests: np.ndarray  # [N, 16] uint8


class StoredImages:
    """Images [N, C, H, W] uint8 in files; indexing reads the chosen rows. It can be sent to another process."""

    dtype = torch.uint8
    device = torch.device("cpu")

    def __init__(self, files: Sequence[RowFile], image_shape: Sequence[int], rows: Tensor | None = None) -> None:
        """Refer to all images of some files, or to chosen ones.

        Args:
            rows: [N] int64, numbered through all files; None: each once, in order.

        Raises:
            DataError: a file is missing or has another length.
        """
        self._files, self._image_shape = tuple(files), tuple(int(side) for side in image_shape)
        self._size = int(np.prod(self._image_shape))
        counts = [len(file.digests) for file in files]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._rows = torch.arange(int(self._starts[-1])) if rows is None else rows
        self._open: dict[int, int] = {}  # descriptors by the number of a file, of this process alone
        for file, count in zip(files, counts, strict=True):
            found = file.path.stat().st_size if file.path.is_file() else -1
            if found != count * self._size:
                raise DataError(f"{file.path}, of the cache of decoded images, is damaged or gone; delete its folder")

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self._rows), *self._image_shape))

    @property
    def place(self) -> Path:
        """Path of the first file, for messages."""
        return self._files[0].path

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Tensor:
        """Read the chosen images, [B, C, H, W], into memory."""
        wanted = self._rows[index].cpu().numpy().reshape(-1)
        found = np.empty((len(wanted), self._size), np.uint8)
        numbers = np.searchsorted(self._starts, wanted, side="right") - 1
        for place, (number, row) in enumerate(zip(numbers.tolist(), wanted.tolist(), strict=True)):
            offset = (row - int(self._starts[number])) * self._size
            if os.preadv(self._descriptor(number), [found[place]], offset) != self._size:
                raise DataError(f"{self._files[number].path}, of the cache of decoded images, was cut short")
        return torch.from_numpy(found).view(-1, *self._image_shape)

    def select(self, index: Tensor) -> "StoredImages":
        """Refer to the chosen images, without reading them. `index` is [B] int64 or a mask [N]."""
        return StoredImages(self._files, self._image_shape, self._rows[index.cpu()])

    def joined(self, other: "StoredImages") -> "StoredImages":
        """Refer to these images and to others of the same shape after them."""
        assert other._image_shape == self._image_shape
        rows = torch.cat([self._rows, other._rows + int(self._starts[-1])])
        return StoredImages(self._files + other._files, self._image_shape, rows)

    def digests(self, index: np.ndarray | None = None) -> np.ndarray:
        """Return the digests of the images or of some, [N, 16] uint8."""
        rows = (self._rows if index is None else self._rows[torch.from_numpy(index)]).numpy()
        found: np.ndarray = np.concatenate([file.digests for file in self._files])[rows]
        return found

    def to(self, device: torch.device | None) -> "StoredImages":
        """Return itself: images go to a device batch by batch."""
        return self

    def _descriptor(self, number: int) -> int:
        if number not in self._open:
            self._open[number] = os.open(self._files[number].path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)
