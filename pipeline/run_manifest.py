"""A run's manifest.json: what the run was made with, and what each stage was made from and wrote."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from pipeline.errors import RunDirError, command
from pipeline.foreign import read_json_bounded
from pipeline.frozen import Frozen, first_problem
from pipeline.provenance import describe_machine, git_commit, installed_versions

MANIFEST = "manifest.json"
_SCHEMA = 1


def _inside(name: str) -> str:
    """Raises: ValueError: a path that leads out of the folder that it is relative to."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or PureWindowsPath(name).anchor or "\0" in name:
        raise ValueError(f"{name[:100]!r} leads out of the run; its files are named relative to it")
    return name


RunPath = Annotated[str, AfterValidator(_inside)]  # of a file, relative to its run


class StageRecord(Frozen):
    status: str  # "done"
    seconds: float
    inputs: str  # digest
    files: dict[RunPath, str] = {}  # path inside the run -> SHA-256
    cautions: tuple[str, ...] = ()  # what the stage did without, a sentence each


class Origin(Frozen):
    """What results come from, beside the configuration."""

    git_commit: str | None
    versions: dict[str, str]
    machine: dict[str, str | int]


class EarlierOrigin(Origin):
    """Of stages that were done before another version or machine went on with the run."""

    stages: tuple[str, ...]


class Manifest(Origin):
    """The origin is that of the stages that no entry of `earlier` names."""

    schema_version: int = Field(_SCHEMA, alias="schema")
    name: str
    created: str
    seed: int
    config_digest: str
    earlier: tuple[EarlierOrigin, ...] = ()
    stages: dict[str, StageRecord] = {}

    def made_by(self, origin: Origin) -> "Manifest":
        """The same run, whose stages from now on come from `origin`."""
        before = Origin.model_validate(self.model_dump(include=set(Origin.model_fields)))
        if before == origin:
            return self
        told = {stage for entry in self.earlier for stage in entry.stages}
        stages = tuple(stage for stage in self.stages if stage not in told)
        earlier = (*self.earlier, EarlierOrigin(**dict(before), stages=stages)) if stages else self.earlier
        return self.model_copy(update=dict(origin) | {"earlier": earlier})


def origin_here() -> Origin:
    """Of what this process computes."""
    return Origin(git_commit=git_commit(), versions=installed_versions(), machine=describe_machine())


def require_own_files(root: Path, held: bool) -> None:
    """Refuse a run in which a name leads elsewhere: it may be somebody else's, and its files are written.

    Args:
        held: it is to be written, so that a second name of a file, which might lie anywhere, is refused too.

    Raises:
        RunDirError: a link, a pipe or a device is in it.
    """
    for entry in _entries(root):
        if entry.is_symlink():
            what = "is a link"
        elif entry.is_dir(follow_symlinks=False):
            continue
        elif not entry.is_file(follow_symlinks=False):
            what = "is no plain file"
        elif held and _names(entry) > 1:
            what = "is a hard link, and what it shares its bytes with would be written too"
        else:
            continue
        raise RunDirError(f"{entry.path} {what}; a run holds its files themselves (`cp -rL` makes a copy that does)")


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """All that lies below, links not followed; a process that holds the run may take files away meanwhile."""
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def _names(entry: "os.DirEntry[str]") -> int:
    """How many names a file has, in whatever folders."""
    with contextlib.suppress(FileNotFoundError):
        return entry.stat(follow_symlinks=False).st_nlink
    return 0


def read_run_manifest(root: Path) -> Manifest:
    """The manifest of the run in a folder.

    Raises:
        RunDirError: there is none, or the one that is there is not a run's.
    """
    path = root / MANIFEST
    if not path.is_file():
        raise RunDirError(f"{root} is not a run directory (no {MANIFEST} in it); `edgestill runs` lists them")
    try:
        manifest = Manifest.model_validate_json(read_json_bounded(path, RunDirError))
    except ValidationError as error:
        if (root / "bundle.json").is_file():
            raise RunDirError(
                f"{root} is a bundle, not a run; {command('verify', root)} checks it, and what takes a run wants "
                "the folder that the bundle was made in"
            ) from None
        raise RunDirError(
            f"{path} is damaged, or not a run's ({first_problem(error)}); put it back, or start a new run"
        ) from None
    if manifest.schema_version != _SCHEMA:
        raise RunDirError(
            f"{path} has schema {manifest.schema_version}, and this version of edgestill reads {_SCHEMA}; "
            "use the version that made the run, or start a new one"
        )
    return manifest
