"""Options and arguments that several commands take."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

Commands = dict[str, Callable[..., object] | typer.Typer]  # by name; a Typer is a group of commands

Out = Annotated[Path, typer.Option("--out", help="Folder that holds the runs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="One plain line a stage.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key, such as search.budget.max_params=50000; repeatable, and of one key the last counts.",
    ),
]
Preset = Annotated[str | None, typer.Option("--preset", help="Start from a built-in configuration; see `presets`.")]
Config = Annotated[Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Configuration; see `init`.")]
ViaPrefect = Annotated[
    bool | None,
    typer.Option(
        "--prefect/--no-prefect",
        help="As a Prefect flow run, or in plain Python. Default: Prefect where PREFECT_API_URL is set.",
    ),
]
Run = Annotated[str, typer.Argument(help="A run's folder, its name below --out, or `latest`.")]
Space = Annotated[str, typer.Option(help="Search space.")]
