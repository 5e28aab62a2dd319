"""The commands for configurations: init, presets."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Set
from edgestill.flows.terminal import answer, say


def init(
    file: Annotated[Path, typer.Argument(help="File to write.")] = Path("edgestill.yaml"),
    preset: Annotated[str, typer.Option("--preset", help="Built-in configuration to take the values from.")] = "digits",
    settings: Set = None,
) -> None:
    """Write a complete configuration file, each key explained."""
    from edgestill.flows.config import commented_yaml, load_config
    from edgestill.pipeline.errors import ConfigError, command
    from edgestill.pipeline.runs.checkpoint import write_atomic

    if file.exists():
        raise ConfigError([f"{file} exists already; name another file, or remove it first"])
    write_atomic(file, commented_yaml(load_config(None, preset, settings or [], check_files=False)).encode())
    say(f"wrote {file}; {command('run', file)} runs it")


def presets() -> None:
    """List the built-in configurations."""
    from edgestill.flows.config import preset_names, preset_text

    width = max(map(len, preset_names()))
    firsts = ((name, preset_text(name).splitlines()[0].lstrip("# ")) for name in preset_names())
    answer("\n".join(f"{name:<{width}}  {first}" for name, first in firsts))


COMMANDS: Commands = {"init": init, "presets": presets}
