"""The commands for a Prefect server: serve, ui."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Out, Preset, Set


def serve(
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration file with the deployment's default parameters.")
    ] = None,
    preset: Preset = None,
    settings: Set = None,
    cron: Annotated[str | None, typer.Option(help="Schedule in cron's form, such as '0 2 * * *'.")] = None,
    name: Annotated[str, typer.Option(help="Name of the deployment.")] = "edgestill",
    out: Out = Path("runs"),
    limit: Annotated[int, typer.Option(min=1, help="Largest number of runs at the same time.")] = 1,
    allow: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that runs may read, besides --out and the configuration's paths. Repeatable."),
    ] = None,
) -> None:
    """Serve runs on this machine as a Prefect deployment.

    Start them from the Prefect UI, by its API or on a schedule.
    """
    from edgestill.flows.config import RunConfig, load_config

    given = config is not None or preset is not None or bool(settings)
    loaded = load_config(config, preset, settings or []) if given else RunConfig()
    from edgestill.flows.prefect.serve import serve_flow

    serve_flow(loaded, out, name=name, cron=cron, limit=limit, allow=allow or [])


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server and its UI.")] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback address needs a password.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name by which clients may address the server. Repeatable."),
    ] = None,
) -> None:
    """Start a Prefect server with its UI, if none runs here yet."""
    from edgestill.flows.prefect.serve import start_server

    start_server(host, port, allow_host or [])


COMMANDS: Commands = {"serve": serve, "ui": ui}
