"""The person's own targets: one YAML file in the configuration folder."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from edgestill.export.targets.config import TargetConfig
from edgestill.pipeline.errors import ConfigError, command, nearest
from edgestill.pipeline.foreign import MAX_CONFIG_BYTES, read_text_bounded
from edgestill.pipeline.frozen import first_problem
from edgestill.pipeline.runs.checkpoint import write_atomic
from edgestill.pipeline.runs.yaml_text import read_yaml, write_yaml

FILE = "targets.yaml"
HERE = TargetConfig(name="here", where="here")


def book_path() -> Path:
    """Path of the file: in EDGESTILL_CONFIG, or `edgestill` below XDG_CONFIG_HOME (~/.config)."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(os.environ.get("EDGESTILL_CONFIG") or Path(home) / "edgestill") / FILE


def read_book() -> dict[str, TargetConfig]:
    """Read the targets by name; `here` is always one.

    Raises:
        ConfigError: the file is damaged, or a key in it stands twice.
    """
    path = book_path()
    if not path.is_file():
        return {HERE.name: HERE}
    text = read_text_bounded(path, MAX_CONFIG_BYTES, lambda problem: ConfigError([problem]))
    try:
        found = read_yaml(text, str(path)) or {}
        named = {name: {"name": name, **settings} for name, settings in found.items()}
        return {HERE.name: HERE} | {name: TargetConfig.model_validate(given) for name, given in named.items()}
    except (AttributeError, TypeError) as error:
        raise ConfigError(
            [f"{path} is no list of targets ({type(error).__name__}); mend it, or move it away"]
        ) from None
    except ValidationError as error:
        raise ConfigError([f"{path}: {first_problem(error)}"]) from None


def write_book(targets: dict[str, TargetConfig]) -> None:
    """Write the targets, each with those of its settings that are not the defaults."""
    kept = {name: target for name, target in targets.items() if target != HERE}
    plain = {
        name: target.model_dump(mode="json", exclude_defaults=True, exclude={"name"}) | {"where": target.where}
        for name, target in kept.items()
    }
    path = book_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, write_yaml(plain).encode())


def target_of(name: str) -> TargetConfig:
    """Return a target by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    known = read_book()
    if name not in known:
        add = command("target", "add", name[:40], "ssh://USER@HOST")
        raise ConfigError([f"there is no target {name[:40]!r}; {nearest(name, known)}; {add} makes one"])
    return known[name]


def _spelt_out(value: Any) -> Any:
    """Let the name of a target in the person's file stand for its settings."""
    return target_of(value) if isinstance(value, str) else value


AnyTarget = Annotated[TargetConfig, BeforeValidator(_spelt_out)]
