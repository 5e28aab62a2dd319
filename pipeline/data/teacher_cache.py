"""Outputs of a teacher on a split's examples: in memory if they are small, else in files read row by row.

Files are kept between runs, named by all that determines them. A damaged or a foreign one is computed anew.
"""

# N examples, B batch, D embedding width, K classes

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.frozen import canonical_json, digest
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.runs.checkpoint import write_folder

IN_MEMORY_BYTES = 2**28  # of all parts; larger ones stay in their files
_MOST_SHARE = 0.5  # of the free disk
_ABOUT = "outputs.json"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of a function in a network's printed form; differs by process
_NO_OUTPUTS = (OSError, ValueError, KeyError, TypeError)
_AT_ONCE = 2**24  # bytes of a file in memory


class Outputs:
    """Outputs by the position of their example: tensors, or files of rows."""

    def __init__(self, parts: View | Mapping[str, "RowTable"], device: torch.device) -> None:
        self._parts, self._device = parts, device

    def rows(self, index: Tensor) -> View:
        """Return the outputs on chosen examples [B]; features are empty if they were not kept."""
        if isinstance(self._parts, View):
            return View(*(part[index] if len(part) else part for part in self._parts))
        chosen = index.cpu().numpy()
        return View(*(self._parts[name].rows(chosen).to(self._device) for name in View._fields))


class RowTable:
    """A file of equal rows of numbers, read at the places that are asked for; nothing of it stays in memory."""

    def __init__(self, path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        """Refer to a file of [N, ...]; one of no rows need not be there."""
        self.path, self.dtype, self.shape = path, dtype, shape
        self._row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)) if shape[0] else -1

    @property
    def size_bytes(self) -> int:
        return self.shape[0] * self._row_bytes

    def rows(self, index: np.ndarray) -> Tensor:
        if not self._row_bytes or not self.shape[0]:  # parts that the teacher lacks, or that nobody reads
            return torch.empty((len(index) if self.shape[0] else 0, *self.shape[1:]), dtype=self.dtype)
        found = np.empty((len(index), self._row_bytes), np.uint8)
        for place, row in enumerate(index.tolist()):
            if os.preadv(self._descriptor, [found[place]], row * self._row_bytes) != self._row_bytes:
                raise OSError(f"{self.path} was cut short")
        return torch.from_numpy(found).view(self.dtype).view(len(index), *self.shape[1:])

    def whole(self) -> Tensor:
        return self.rows(np.arange(self.shape[0]))

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)


def content_key(teacher: nn.Module, split: ImageSplit, *others: Any) -> str:
    """Digest of a teacher's weights and structure, a split's examples, torch's version, and other plain values."""
    return digest(_network_digest(teacher), split_digest(split), torch.__version__, *others)


def kept_outputs(
    folder: Path,
    key: str,
    make: Callable[[], Iterator[View]],
    probe: Callable[[], View],
    device: torch.device,
) -> Outputs | None:
    """Return the outputs of a key, from its files below `folder`, or computed and written there.

    Args:
        make: computes the outputs batch by batch, in order.
        probe: computes those on a few examples. A network's code is in no key, so kept outputs count only if this
            finds what it found when they were written.

    Returns:
        None if there is no place for them.
    """
    target = folder / key
    with contextlib.suppress(*_NO_OUTPUTS):
        return _read(target, key, probe(), device)
    with contextlib.suppress(OSError):  # no room, no right to write, or another process was faster
        target.parent.mkdir(parents=True, exist_ok=True)
        write_folder(target, lambda aside: _write(aside, key, make(), probe(), shutil.disk_usage(folder).free))
    with contextlib.suppress(*_NO_OUTPUTS):
        return _read(target, key, probe(), device)
    return None


def _write(folder: Path, key: str, batches: Iterator[View], probe: View, free: int) -> None:
    """Write each part to a file of rows, and what they are beside them.

    Raises:
        OSError: they take more than half of the free disk.
    """
    about: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in View._fields}
        sums = {name: hashlib.sha256() for name in View._fields}
        count = written = 0
        for view in batches:
            count += len(view.logits)
            for name, part in view._asdict().items():
                data = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
                written += data.nbytes
                if written > _MOST_SHARE * free:
                    raise OSError(f"the teacher's outputs take more than half of the {free:,} bytes that are free")
                files[name].write(data.data)
                sums[name].update(data.data)
                rows = count if len(part) else 0
                about[name] = {"dtype": str(part.dtype).removeprefix("torch."), "shape": [rows, *part.shape[1:]]}
    parts = {name: {**about[name], "sha256": sums[name].hexdigest()} for name in View._fields}
    (folder / _ABOUT).write_text(
        canonical_json(
            {
                "what": f"outputs of a teacher on {count:,} examples",
                "key": key,
                "size_bytes": written,
                "when": datetime.now(UTC).isoformat(timespec="seconds"),
                "parts": parts,
                "probe": _numbers(probe),
            }
        )
    )


def _read(folder: Path, key: str, probe: View | None, device: torch.device) -> Outputs:
    """Read the outputs of a key.

    Raises:
        OSError, ValueError, KeyError, TypeError: there are none, or they are damaged, or of another teacher.
    """
    about = json.loads((folder / _ABOUT).read_text())
    if about["key"] != key or (probe is not None and not np.allclose(about["probe"], _numbers(probe), 1e-3, 1e-4)):
        raise ValueError("of another teacher")
    tables = {name: _table(folder / name, about["parts"][name]) for name in View._fields}
    if sum(table.size_bytes for table in tables.values()) > IN_MEMORY_BYTES:
        return Outputs(tables, device)
    return Outputs(View(*(table.whole().to(device) for table in tables.values())), device)


def _table(path: Path, about: Mapping[str, Any]) -> RowTable:
    table = RowTable(path, getattr(torch, about["dtype"]), tuple(about["shape"]))
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_AT_ONCE):
            found.update(part)
    if path.stat().st_size != table.size_bytes or found.hexdigest() != about["sha256"]:
        raise ValueError(f"{path} is damaged")
    return table


def _numbers(view: View) -> list[list[float]]:
    numbers: list[list[float]] = view.logits.detach().double().cpu().tolist()
    return numbers


def _network_digest(network: nn.Module) -> str:
    found = hashlib.sha256(_ADDRESS.sub("", repr(network)).encode())
    for name, value in network.state_dict().items():
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def split_digest(split: ImageSplit) -> str:
    """Digest of a split's examples in their order, without labels."""
    images = split.images
    found = hashlib.sha256(f"{images.dtype} {list(images.shape)}".encode())
    whole = images.digests() if isinstance(images, StoredImages) else images.cpu().contiguous().numpy()
    found.update(np.ascontiguousarray(whole).data)
    return found.hexdigest()
