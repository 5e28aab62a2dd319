"""A run's manifest.json: commit, versions and machine of the run, and each stage's inputs and files."""

import contextlib
import datetime
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from edgestill.pipeline.errors import RunDirError, command
from edgestill.pipeline.foreign import read_json_bounded
from edgestill.pipeline.frozen import Frozen, first_problem
from edgestill.pipeline.runs.provenance import describe_machine, git_commit, installed_versions

MANIFEST = "manifest.json"
_SCHEMA = 1
_LONGEST = 255  # bytes of a path in a run; file systems allow no longer name


def _inside(name: str) -> str:
    """Refuse (ValueError) a path that leads out of the folder that it is relative to, or is too long to be one."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or PureWindowsPath(name).anchor or "\0" in name:
        raise ValueError(f"{name[:100]!r} leads out of the run; its files are named relative to it")
    if len(name.encode(errors="replace")) > _LONGEST:
        raise ValueError(f"{name[:100]!r}… is longer than the {_LONGEST} bytes of a path in a run")
    return name


RunPath = Annotated[str, AfterValidator(_inside)]  # of a file, relative to its run


class StageRecord(Frozen):
    status: str  # "done"
    seconds: float
    inputs: str  # digest
    files: dict[RunPath, str] = {}  # path inside the run -> SHA-256
    cautions: tuple[str, ...] = ()  # things that the stage did without, a sentence each


class Origin(Frozen):
    """Origin of results, beside the configuration: commit, versions and machine."""

    git_commit: str | None
    versions: dict[str, str]
    machine: dict[str, str | int]


class EarlierOrigin(Origin):
    """Origin of the stages done before another version or machine went on with the run."""

    stages: tuple[str, ...]


class ConfigChange(Frozen):
    """Change of a run's configuration between two stages."""

    at: str  # time
    before: str  # digest of the configuration before
    settings: dict[str, str]  # by dotted key: `old -> new`, in YAML
    stages: tuple[str, ...]  # done with the configuration before


class Manifest(Origin):
    """Manifest of a run. Its own origin is that of all stages without an entry in `earlier`."""

    schema_version: int = Field(_SCHEMA, alias="schema")
    name: str
    created: str
    seed: int
    config_digest: str  # of the configuration now
    earlier: tuple[EarlierOrigin, ...] = ()
    changes: tuple[ConfigChange, ...] = ()  # of the configuration, oldest first
    stages: dict[str, StageRecord] = {}

    @property
    def started_with(self) -> str:
        """Digest of the configuration that the run was started with."""
        return self.changes[0].before if self.changes else self.config_digest

    def changed_to(self, config_digest: str, settings: Mapping[str, str]) -> "Manifest":
        """Return the manifest with another configuration from now on.

        Args:
            settings: what changes, by dotted key: `old -> new`.
        """
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        change = ConfigChange(at=at, before=self.config_digest, settings=dict(settings), stages=tuple(self.stages))
        return self.model_copy(update={"config_digest": config_digest, "changes": (*self.changes, change)})

    def without_last_change(self) -> "Manifest":
        *kept, last = self.changes
        return self.model_copy(update={"changes": tuple(kept), "config_digest": last.before})

    def made_by(self, origin: Origin) -> "Manifest":
        """Return the manifest with `origin` for the stages from now on; `earlier` keeps that of the stages so far."""
        before = Origin.model_validate(self.model_dump(include=set(Origin.model_fields)))
        if before == origin:
            return self
        told = {stage for entry in self.earlier for stage in entry.stages}
        stages = tuple(stage for stage in self.stages if stage not in told)
        earlier = (*self.earlier, EarlierOrigin(**dict(before), stages=stages)) if stages else self.earlier
        return self.model_copy(update=dict(origin) | {"earlier": earlier})

    def continuing(self, other: "Manifest", stages: Mapping[str, StageRecord]) -> "Manifest":
        """Return the manifest with stages of another run, whose origin they keep."""
        origin = {name: getattr(other, name) for name in (*Origin.model_fields, "earlier")}
        return self.model_copy(update=origin | {"stages": dict(stages)})


def origin_here() -> Origin:
    """Origin of the results that this process computes."""
    return Origin(git_commit=git_commit(), versions=installed_versions(), machine=describe_machine())


def require_own_files(root: Path, held: bool) -> None:
    """Refuse a run with links in it: it may be somebody else's, and writing through a link would reach other files.

    Args:
        held: the run is to be written; hard links are refused too then, as the file's other name may be anywhere.

    Raises:
        RunDirError: the run holds a link, a pipe or a device.
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
    """Yield all entries below a folder, links not followed; a process that holds the run may remove files meanwhile."""
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def _names(entry: "os.DirEntry[str]") -> int:
    """Number of names (hard links) of a file, in all folders; 0 if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return entry.stat(follow_symlinks=False).st_nlink
    return 0


def read_run_manifest(root: Path) -> Manifest:
    """Read the manifest of the run in a folder.

    Raises:
        RunDirError: the folder has none, or it is damaged, not a run's, or of another schema.
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
