"""A run's manifest.json: what the run was made with, and what each stage was made from and wrote."""

from pathlib import Path

from pydantic import Field, ValidationError

from pipeline.errors import RunDirError, command
from pipeline.frozen import Frozen
from pipeline.provenance import describe_machine, git_commit, installed_versions

MANIFEST = "manifest.json"
_SCHEMA = 1


class StageRecord(Frozen):
    status: str  # "done"
    seconds: float
    inputs: str  # digest
    files: dict[str, str] = {}  # path inside the run -> SHA-256


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


def read_run_manifest(root: Path) -> Manifest:
    """The manifest of the run in a folder.

    Raises:
        RunDirError: there is none, or the one that is there is not a run's.
    """
    path = root / MANIFEST
    if not path.is_file():
        raise RunDirError(f"{root} is not a run directory (no {MANIFEST} in it); `edgestill runs` lists them")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        if (root / "bundle.json").is_file():
            raise RunDirError(
                f"{root} is a bundle, not a run; {command('verify', root)} checks it, and what takes a run wants "
                "the folder that the bundle was made in"
            ) from None
        first = error.errors()[0]
        where = f"{'.'.join(map(str, first['loc']))}: " * bool(first["loc"])
        raise RunDirError(
            f"{path} is damaged, or not a run's ({where}{first['msg']}); put it back, or start a new run"
        ) from None
    if manifest.schema_version != _SCHEMA:
        raise RunDirError(
            f"{path} has schema {manifest.schema_version}, and this version of edgestill reads {_SCHEMA}; "
            "use the version that made the run, or start a new one"
        )
    return manifest
