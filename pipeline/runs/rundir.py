"""The run directory: the one object that reads and writes the files of a run.

    runs/<date>_<time>_<name>_<key>/
      config.yaml     the configuration, complete
      manifest.json   versions, machine, seed; per stage: status, seconds, inputs digest, SHA-256 of every file
      <stage>/        a stage's files, its result.json among them
      bundle/         the files to ship
      report.html     the report
      devices/        profiles from devices, shown by `edgestill report --device`

A stage is done when the manifest says so for the digest of its inputs. Every write is atomic; one process
holds a run at a time, by a lock that the system releases when the process dies.
"""

import datetime
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from edgestill.pipeline.errors import RunDirError, command
from edgestill.pipeline.foreign import MAX_JSON_BYTES, read_bounded
from edgestill.pipeline.frozen import digest, first_problem, require_utf8
from edgestill.pipeline.runs.checkpoint import copy_file, read_state, state_bytes, write_atomic, write_folder
from edgestill.pipeline.runs.folder import acquire, own_folder, unused_folder
from edgestill.pipeline.runs.manifest import MANIFEST, Manifest, StageRecord, origin_here, read_run_manifest
from edgestill.pipeline.runs.run_config import Explain, first_only, read_config, settled, write_config
from edgestill.pipeline.runs.sealed import Journal, read_sealed, write_sealed

Result = TypeVar("Result", bound=BaseModel)


class RunDir:
    """A run's folder, held for writing (`create`, `open`) or only read (`view`). Use it in a `with` block."""

    def __init__(self, root: Path, lock: FileLock | None) -> None:
        self.root = root
        self._lock = lock

    @classmethod
    def create(cls, parent: Path, name: str, seed: int, config: BaseModel) -> "RunDir":
        """Create a run below `parent`, held by this process.

        Raises:
            RunDirError: no run can be made there.
        """
        try:
            require_utf8(parent.absolute())
        except ValueError as error:
            raise RunDirError(f"--out: {error}") from None
        config_digest = digest(config)
        created = datetime.datetime.now(datetime.UTC)
        root = unused_folder(parent, f"{created:%Y%m%d_%H%M%S}_{name}_{config_digest[:6]}")
        try:
            return cls._begun(root, name, seed, config, created)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise

    @classmethod
    def _begun(cls, root: Path, name: str, seed: int, config: BaseModel, created: datetime.datetime) -> "RunDir":
        run = cls(root, acquire(root))
        manifest = Manifest(
            schema=1,
            name=name,
            created=created.isoformat(timespec="seconds"),
            seed=seed,
            config_digest=digest(config),
            **dict(origin_here()),
        )
        write_config(root, config)
        run._save(manifest)
        return run

    @classmethod
    def open(cls, root: Path) -> "RunDir":
        """Open an existing run, held by this process.

        Raises:
            RunDirError: there is no run, another process holds it, or it holds a link, a pipe or a device.
        """
        return cls(own_folder(root, held=True), acquire(root))

    @classmethod
    def view(cls, root: Path) -> "RunDir":
        """Open an existing run to read from, even if another process holds it."""
        return cls(own_folder(root, held=False), None)

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the run, if it is held."""
        if self._lock is not None:
            self._lock.release()

    def discard(self, stage: str = "") -> None:
        """Remove the run and all that is in it, or what an unfinished stage has done."""
        shutil.rmtree(self.root / stage, ignore_errors=bool(stage))

    @property
    def manifest(self) -> Manifest:
        return read_run_manifest(self.root)

    @property
    def cautions(self) -> tuple[str, ...]:
        """Things that finished stages did without, a sentence each."""
        return tuple(caution for record in self.manifest.stages.values() for caution in record.cautions)

    def config(self, kind: type[Result], explain: Explain = first_only) -> Result:
        """Read the configuration that the run was created with; settings newer than the run have their defaults.

        Raises:
            RunDirError: it cannot be used here, or was edited; or the run is held, and another version started it.
        """
        manifest = settled(self.root, self.manifest)
        return read_config(self.root, kind, manifest.config_digest, self._lock is not None, explain)

    def reconfigure(self, config: BaseModel, settings: Mapping[str, str]) -> None:
        """Replace the configuration of a run that goes on; the manifest tells what changed, `old -> new` by key."""
        self._save(settled(self.root, self.manifest).changed_to(digest(config), settings))
        write_config(self.root, config)

    def path(self, stage: str, name: str) -> Path:
        """Return the path of a stage's file, and make its folder."""
        folder = self.root / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def write(self, stage: str, name: str, data: bytes | str | BaseModel) -> Path:
        """Write one file of a stage atomically, and return its path."""
        path = self.path(stage, name)
        if isinstance(data, BaseModel):
            data = data.model_dump_json(indent=1) + "\n"
        write_atomic(path, data.encode() if isinstance(data, str) else data)
        return path

    def write_folder(self, name: str, fill: Callable[[Path], object]) -> Path:
        """Write a folder whole or not at all: fill it aside, then rename it into place."""
        return write_folder(self.root / name, fill)

    def journal(self, stage: str, name: str, inputs: str = "") -> Journal:
        """Open a stage's journal for these inputs.

        Raises:
            RunDirError: a line of it is damaged or another owner's.
        """
        return Journal(self.path(stage, name), self.owner(stage, name, inputs))

    def save(self, stage: str, name: str, state: Mapping[str, Any], inputs: str = "") -> None:
        """Save a state from which the stage goes on after a kill, for these inputs alone."""
        write_sealed(self.path(stage, name), state_bytes(state), self.owner(stage, name, inputs))

    def saved(self, stage: str, name: str, inputs: str = "") -> dict[str, Any] | None:
        """Return the state that `save` was given last; None where there is none.

        Raises:
            RunDirError: the file is damaged, or another owner's.
        """
        data = read_sealed(self.path(stage, name), self.owner(stage, name, inputs))
        return None if data is None else read_state(data)

    def owner(self, stage: str, name: str, inputs: str) -> str:
        """Owner in a sealed file: a digest of the run's configuration, the stage, the file's name and the inputs."""
        return digest(self.manifest.started_with, stage, name, inputs)

    def forget(self, stage: str) -> None:
        """Remove the stage's hidden files, from which it would go on after a kill."""
        for path in _files(self.root, stage):
            if path.name.startswith("."):
                path.unlink()

    def is_done(self, stage: str, inputs: str) -> bool:
        """True if the stage was finished for these inputs."""
        record = self.manifest.stages.get(stage)
        return record is not None and record.status == "done" and record.inputs == inputs

    def finish(
        self,
        stage: str,
        result: BaseModel,
        inputs: str,
        seconds: float,
        beside: Sequence[str] = (),
        cautions: Sequence[str] = (),
    ) -> None:
        """Write the stage's result, then enter it and all of the stage's files in the manifest.

        Hidden files, from which a stage goes on after a kill, are not entered but removed.

        Args:
            beside: files and folders of the stage outside its own folder.
            cautions: things that the stage did without, a sentence each.
        """
        self.write(stage, "result.json", result)
        record = StageRecord(
            status="done",
            seconds=round(seconds, 3),
            inputs=inputs,
            files=self._digests(stage, *beside),
            cautions=tuple(cautions),
        )
        self._enter(stage, record)
        self.forget(stage)

    def add(self, stage: str, *names: str) -> None:
        """Enter files and folders that were added to a finished stage."""
        record = self.manifest.stages[stage]
        self._enter(stage, record.model_copy(update={"files": record.files | self._digests(*names)}))

    def adopt(self, other: "RunDir", stages: Sequence[str]) -> None:
        """Take over finished stages of another run, with their files and their origin; this run has none so far.

        Raises:
            RunDirError: one of their files was altered or lost since.
        """
        theirs = other.manifest
        records = {stage: theirs.stages[stage] for stage in stages}
        for record in records.values():
            self._copy(other, record)
        self._save(self.manifest.continuing(theirs, records))

    def take_over(self, other: "RunDir", stage: str) -> None:
        """Take over one finished stage of another run of this run's origin, as `adopt` does."""
        record = other.manifest.stages[stage]
        self._copy(other, record)
        self._enter(stage, record)
        self.forget(stage)

    def _copy(self, other: "RunDir", record: StageRecord) -> None:
        for name, expected in record.files.items():
            if copy_file(other.root / name, self.root / name) != expected:
                raise RunDirError(f"{other.root / name} was altered since its stage wrote it; put it back")

    def note_origin(self) -> None:
        """Record commit, versions and machine of the next stages where they differ from those of the stages before."""
        manifest = self.manifest
        noted = settled(self.root, manifest).made_by(origin_here())
        if noted is not manifest:
            self._save(noted)

    def read(self, stage: str, kind: type[Result], movable: str | None = None) -> Result:
        """Read a finished stage's result.

        Args:
            movable: a folder of the stage that may have been moved out of the run, as a whole.

        Raises:
            RunDirError: the stage is not done, or one of its files was altered or lost since.
        """
        record = self.manifest.stages.get(stage)
        if record is None:
            raise RunDirError(f"{self.root} has not finished its {stage} stage; {command('resume', self.root)}")
        is_moved = movable is not None and not (self.root / movable).exists()
        for name, expected in record.files.items():
            path = self.root / name
            if is_moved and Path(name).parts[0] == movable:
                continue
            if not path.is_file() or file_digest(path) != expected:
                what = "was altered" if path.is_file() else "is missing"
                raise RunDirError(f"{path} {what} since the {stage} stage wrote it; start a new run, or put it back")
        path = self.root / stage / "result.json"
        try:
            return kind.model_validate_json(read_bounded(path, MAX_JSON_BYTES, RunDirError))
        except ValidationError as error:
            raise RunDirError(
                f"{path} is not what this edgestill writes ({first_problem(error)}); start a new run"
            ) from None

    def _digests(self, *names: str) -> dict[str, str]:
        files = [path for path in _files(self.root, *names) if not path.name.startswith(".")]
        return {str(path.relative_to(self.root)): file_digest(path) for path in files}

    def _enter(self, stage: str, record: StageRecord) -> None:
        self._save(self.manifest.model_copy(update={"stages": self.manifest.stages | {stage: record}}))

    def _save(self, manifest: Manifest) -> None:
        write_atomic(self.root / MANIFEST, f"{manifest.model_dump_json(indent=1, by_alias=True)}\n".encode())


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(root: Path, *names: str) -> list[Path]:
    """List all files among these names, and in folders of these names."""
    paths = [path for name in names for path in (root / name, *sorted((root / name).rglob("*")))]
    return [path for path in paths if path.is_file()]
