"""The configuration in a run's folder, which must be the one that the run was started with."""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgestill.pipeline.errors import ConfigError, RunDirError
from edgestill.pipeline.frozen import digest, first_problem
from edgestill.pipeline.runs.checkpoint import write_atomic
from edgestill.pipeline.runs.manifest import Manifest
from edgestill.pipeline.runs.yaml_text import read_yaml, write_yaml

CONFIG = "config.yaml"
Config = TypeVar("Config", bound=BaseModel)
Explain = Callable[[ValidationError, Any], Iterable[str]]  # (error, the mapping) -> sentences


def first_only(error: ValidationError, written: Any) -> Iterable[str]:
    """Tell the first problem, in pydantic's words."""
    return (first_problem(error),)


def write_config(root: Path, config: BaseModel) -> None:
    """Write a run's configuration, complete."""
    write_atomic(root / CONFIG, write_yaml(config.model_dump(mode="json")).encode())


def settled(root: Path, manifest: Manifest) -> Manifest:
    """Return the manifest without a last change that a kill kept from the configuration's file."""
    if not manifest.changes:
        return manifest
    with contextlib.suppress(OSError, UnicodeDecodeError, ConfigError):
        if digest(read_yaml((root / CONFIG).read_text(encoding="utf-8"), "it")) == manifest.changes[-1].before:
            return manifest.without_last_change()
    return manifest


def read_config(root: Path, kind: type[Config], started_with: str, held: bool, explain: Explain = first_only) -> Config:
    """Read a run's configuration; settings newer than the run have their defaults.

    Args:
        started_with: digest of the configuration that the run was started with.
        held: the run is to go on, so that this version's settings must be those of the one that started it.
        explain: tells a validation's problems.

    Raises:
        RunDirError: the file is unreadable or was edited since; or the run is held, and a version of edgestill with
            other settings wrote it.
    """
    path = root / CONFIG
    try:
        written = read_yaml(path.read_text(encoding="utf-8"), "it")
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        first = str(error).splitlines()[0]
        raise RunDirError(f"{path} cannot be read ({first}); put it back, or start a new run") from error
    try:
        config = kind.model_validate(written)
    except ValidationError as error:
        raise RunDirError(
            *(f"{path}: {problem}" for problem in explain(error, written)),
            "install again the plug-in that offered what is unknown, or put the file back if it was edited; else start "
            "a new run with `edgestill run`",
        ) from error
    if started_with not in (digest(written), digest(config)):
        raise RunDirError(
            f"{path} is not the configuration that this run was started with; put it back, or start a new run with "
            "`edgestill run`"
        )
    if held and digest(config) != started_with:
        raise RunDirError(
            f"another version of edgestill, with other settings, started {root}: it can be looked at, but not go on; "
            "start a new run with `edgestill run`"
        )
    return config
