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
    timezone: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="Time zone of --cron, such as Europe/Berlin. Default: this machine's."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the deployments. Default: the configuration's.")] = None,
    out: Out = Path("runs"),
    limit: Annotated[int, typer.Option(min=1, help="Largest number of runs at the same time.")] = 1,
    keep_runs: Annotated[
        int | None, typer.Option(min=1, help="Largest number of the nights' runs to keep. Default: all.")
    ] = None,
    keep_days: Annotated[float | None, typer.Option(min=0.01, help="Days to keep the nights' runs for.")] = None,
    keep_gb: Annotated[float | None, typer.Option(min=0.001, help="Gigabytes of the nights' runs to keep.")] = None,
    allow: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that runs may read, besides --out and the configuration's paths. Repeatable."),
    ] = None,
) -> None:
    """Serve runs on this machine as Prefect deployments.

    Start them from the Prefect UI, by its API or on a schedule. A schedule makes one run a night: a missed one is
    made up for once, and none starts while one is at work.
    """
    from edgestill.flows.config import RunConfig, load_config

    given = config is not None or preset is not None or bool(settings)
    loaded = load_config(config, preset, settings or []) if given else RunConfig()
    from edgestill.flows.prefect.serve import serve_flows
    from edgestill.flows.registry.retention import Retention

    keep = Retention(count=keep_runs, days=keep_days, max_bytes=int(keep_gb * 1e9) if keep_gb else None)
    serve_flows(loaded, out, name=name, cron=cron, timezone=timezone, limit=limit, keep=keep, allow=allow or [])


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server and its UI.")] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback address needs a password.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name by which clients may address the server. Repeatable."),
    ] = None,
    auth: Annotated[
        bool,
        typer.Option(
            "--auth",
            help="Ask for a user and a password. They are made once, kept for this account, and sent by its commands.",
        ),
    ] = False,
) -> None:
    """Start a Prefect server with its UI, if none runs here yet."""
    from edgestill.flows.prefect.serve import start_server

    start_server(host, port, allow_host or [], auth)


COMMANDS: Commands = {"serve": serve, "ui": ui}
