"""Results kept between runs in the user's cache folder, named by content.

A file of another owner, or one impossible to read or write, costs time only.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.errors import RunDirError, UserError, nearest
from edgestill.pipeline.frozen import Frozen, digest
from edgestill.pipeline.runs.provenance import git_commit, installed_versions
from edgestill.pipeline.runs.sealed import read_sealed, write_sealed

P = TypeVar("P", bound=Frozen)


KINDS = {  # folders of the cache
    "images": "decoded pictures",
    "given": "data given from Python; a run that used them cannot go on without",
    "teacher": "teachers' outputs",
    "texts": "texts that teachers wrote",
    "calibration": "calibrations of scorers",
    "rehearsal": "exports that were tried before a training",
    "convolution": "timings that choose how convolutions are computed",
    "tensorrt": "engines of TensorRT",
    "onnxruntime-tensorrt": "engines of ONNX Runtime",
}


class Kind(NamedTuple):
    """Files of one of KINDS."""

    name: str
    entries: int
    size_bytes: int


def kinds() -> list[Kind]:
    """List the kinds of files that the cache has, with their sizes."""
    folders = [cache_folder() / name for name in KINDS]
    return [
        Kind(folder.name, sum(not entry.name.startswith(".") for entry in folder.iterdir()), _size(folder))
        for folder in folders
        if folder.is_dir() and not folder.is_symlink()
    ]


def clear(name: str | None) -> int:
    """Delete a kind of files, or all; return how many bytes that freed.

    Raises:
        UserError: there is no such kind.
    """
    found = kinds()
    chosen = [kind for kind in found if name in (None, kind.name)]
    if name is not None and not chosen:
        raise UserError(f"{cache_folder()} has no {name!r}; {nearest(name, [kind.name for kind in found])}")
    for kind in chosen:
        shutil.rmtree(cache_folder() / kind.name)
    return sum(kind.size_bytes for kind in chosen)


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).lstat().st_size
    return total


def kept_prepared(key: str, kind: type[P], compute: Callable[[], P]) -> P:
    """Return what a scorer prepared, kept for the same content; without it, compute and keep it."""
    path = cache_folder() / "calibration" / f"{key}.json"  # an older name; files of it are still found
    kept = _kept(path, key)
    if kept is not None:
        with contextlib.suppress(ValidationError):
            return kind.model_validate_json(kept)
    found = compute()
    _keep(path, found.model_dump_json().encode(), key)
    return found


def once(kind: str, content: object, check: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Run a check and return its problems; skip it if the same code passed it with the same content before."""
    key = digest(kind, installed_versions(), git_commit(), content)
    path = cache_folder() / kind / key
    if _kept(path, key) is not None:
        return {}
    problems = check()
    if not problems:
        _keep(path, b"", key)
    return problems


def _kept(path: Path, key: str) -> bytes | None:
    with contextlib.suppress(RunDirError):
        return read_sealed(path, key)
    return None


def _keep(path: Path, data: bytes, key: str) -> None:
    with contextlib.suppress(OSError):
        write_sealed(path, data, key)
