"""Results kept between runs in the user's cache folder, named by content.

A file of another owner, or one impossible to read or write, costs time only.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.frozen import Frozen, digest
from edgestill.pipeline.runs.provenance import git_commit, installed_versions
from edgestill.pipeline.runs.sealed import read_sealed, write_sealed

P = TypeVar("P", bound=Frozen)


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
