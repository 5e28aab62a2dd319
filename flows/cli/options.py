"""Options and arguments that several commands take."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

C = TypeVar("C", bound=Callable[..., object])
_LONG: set[object] = set()

Commands = dict[str, Callable[..., object] | typer.Typer]  # by name; a Typer is a group of commands

Out = Annotated[Path, typer.Option("--out", help="Folder of the runs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print plain lines, one for each finished stage.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a configuration key, such as search.budget.max_params=50000. Repeatable; a key's last value counts.",
    ),
]
Change = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a configuration key that no finished stage has read. Repeatable."
    ),
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="Built-in configuration to start from; `edgestill presets` lists them.")
]
Config = Annotated[
    Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Configuration file; `edgestill init` writes one.")
]
ViaPrefect = Annotated[
    bool | None,
    typer.Option(
        "--prefect/--no-prefect",
        help="Run as a Prefect flow or in plain Python. Default: as a flow if PREFECT_API_URL is set.",
    ),
]
Run = Annotated[str, typer.Argument(help="Folder of the run, its name below --out, or `latest`.")]
Space = Annotated[str, typer.Option(help="Search space, such as resnet or nb201.")]


def long(command: C) -> C:
    """Mark a command whose work is long: it has a process of its own, whose death is told and outlived."""
    _LONG.add(command)
    return command


def is_long(command: object) -> bool:
    """True for a command that `long` marked."""
    return command in _LONG
