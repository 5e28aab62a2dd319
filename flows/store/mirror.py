"""Copy a run to a store of objects and back, by fsspec.

A store has no rename, no lock and no order between objects. So a copy is its list of files, `.copy.json`, which is
written last and names the digest of each: a copy without it is not there, and one whose files are others is refused.
The lock of a run stays where the run is worked on.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field, ValidationError

from edgestill.pipeline.errors import FailedError, MissingDependencyError, RunDirError, UserError, first_line
from edgestill.pipeline.frozen import Frozen, canonical_json
from edgestill.pipeline.runs.rundir import RunDir

LIST, LOCK = ".copy.json", ".lock"
SCHEMES = ("s3", "gs", "az", "abfs", "file")  # fsspec's others chain, unpack or run things
_EXTRAS = {"s3": "edgestill[s3]", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_MOST_FILES, _LONGEST_LIST = 100_000, 64 * 2**20
_PART = re.compile(r"[^/\\\0]{1,255}")


class _File(Frozen):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class _Copy(Frozen):
    """List of a copy's files, by their paths in the run."""

    files: dict[str, _File]


def push(root: Path, url: str) -> tuple[int, int]:
    """Copy a run below `url`; return how many files were sent, and how many there are.

    Raises:
        RunDirError: a process works on the run, or it is no run.
        FailedError: the store refuses, or the connection broke; what was sent is not sent again next time.
    """
    store, folder = _opened(url)
    target = f"{folder}/{root.resolve().name}"
    with RunDir.open(root), _talking(url):
        files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
        files = {name: path for name, path in files.items() if name not in (LOCK, LIST)}
        copy = _Copy(files={name: _told(path) for name, path in files.items()})
        there = _there(store, target)
        new = [name for name, file in copy.files.items() if there.files.get(name) != file]
        if new and there.files:
            store.rm_file(f"{target}/{LIST}")  # from here on the old copy is not whole
        for name in new:
            store.put_file(str(files[name]), f"{target}/{name}")
        store.pipe_file(f"{target}/{LIST}", canonical_json(copy).encode())
    return len(new), len(copy.files)


def pull(url: str, name: str, out: Path) -> Path:
    """Copy a run from below `url` to a new folder of its name below `out`, whole or not at all.

    Raises:
        RunDirError: there is no whole copy, its files are not those of its list, or the folder is there already.
        FailedError: the store refuses, or the connection broke.
    """
    if name in (".", "..") or not _PART.fullmatch(name):
        raise UserError(f"{name!r} is no name of a run; give the name of its folder in the store")
    store, folder = _opened(url)
    source, root = f"{folder}/{name}", out / name
    if root.exists():
        raise RunDirError(f"{root} is there already; remove it, or give another --out")
    with _talking(url):
        copy = _listed(store, source)
    if not copy.files:
        raise RunDirError(f"there is no whole copy of {name} in {url}; `edgestill store push` makes one")
    out.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=out, prefix=f".{name[:100]}."))
    try:
        for path, file in copy.files.items():
            with _talking(url):
                _fetch(store, f"{source}/{path}", aside / path, file)
        _require_run(aside, source)
        aside.chmod(0o755)
        aside.rename(root)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return root


def _require_run(folder: Path, source: str) -> None:
    """Refuse what was copied if it is no run.

    Raises:
        RunDirError: it is none.
    """
    try:
        RunDir.view(folder)
    except RunDirError as error:
        said = str(error).replace(str(folder), source)
        raise RunDirError(f"{source} is no copy of a run: {said}") from None


def _there(store: Any, target: str) -> _Copy:
    """Read the list of a copy that is to be replaced; a damaged one stands for none."""
    try:
        return _listed(store, target)
    except RunDirError:
        return _Copy(files={})


def _fetch(store: Any, key: str, target: Path, file: _File) -> None:
    """Read an object of the list's size and digest into a new file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), file.size
    with _open(store, key) as stream, target.open("xb") as written:
        while block := stream.read(2**20):
            left -= len(block)
            if left < 0:
                break
            digest.update(block)
            written.write(block)
        written.flush()
        os.fsync(written.fileno())
    if left or digest.hexdigest() != file.sha256:
        raise RunDirError(f"{key} is not the file of the copy's list: it was altered or cut; push the run again")


def _open(store: Any, key: str) -> Any:
    """Open an object to read; a pipe or a device in a folder that serves as a store is not waited for.

    Raises:
        RunDirError: it is one.
    """
    path = Path(key)
    if "file" in store.protocol and path.exists() and not path.is_file():
        raise RunDirError(f"{key} is no plain file: it was altered; push the run again")
    return store.open(key, "rb")


def _listed(store: Any, target: str) -> _Copy:
    """Read the list of a copy; an empty one if there is none.

    Raises:
        RunDirError: it is no list of a run's files.
    """
    key = f"{target}/{LIST}"
    try:
        with _open(store, key) as stream:
            text = stream.read(_LONGEST_LIST + 1)
    except FileNotFoundError:
        return _Copy(files={})
    try:
        copy = _Copy.model_validate_json(text)
    except ValidationError:
        raise RunDirError(f"{key} is no list of a run's files; push the run again") from None
    if len(copy.files) > _MOST_FILES or not all(_is_inside(name) for name in copy.files):
        raise RunDirError(f"{key} names files that no run has; push the run again")
    return copy


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    is_plain = all(part not in (".", "..") and _PART.fullmatch(part) for part in parts)
    return is_plain and not PurePosixPath(name).is_absolute() and len(parts) <= 16 and name not in (LOCK, LIST)


def _told(path: Path) -> _File:
    with path.open("rb") as file:
        return _File(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)


def _opened(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL and the folder in it.

    Raises:
        UserError: the URL is of no store that runs are copied to, or holds a password.
        MissingDependencyError: the store's library is not installed.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in SCHEMES or "::" in url:
        raise UserError(f"{url[:200]!r} is no store; write s3://BUCKET/runs ({', '.join(SCHEMES)} are known)")
    if "@" in rest.partition("/")[0] and ":" in rest.partition("@")[0]:
        raise UserError("the store's URL holds a password; give it by the environment, as AWS_SECRET_ACCESS_KEY is")
    import fsspec

    try:
        store, folder = fsspec.core.url_to_fs(url, **({"auto_mkdir": True} if scheme == "file" else {}))
    except ImportError:
        raise MissingDependencyError(f"a store at {scheme}:// needs `pip install '{_EXTRAS[scheme]}'`") from None
    return store, folder.rstrip("/")


@contextlib.contextmanager
def _talking(url: str) -> Iterator[None]:
    """Turn an error of a store's library, which may be of any type, into one sentence."""
    try:
        yield
    except (FailedError, UserError):
        raise
    except Exception as error:
        raise FailedError(f"the store {url} failed ({type(error).__name__}: {first_line(error)}); try again") from error
