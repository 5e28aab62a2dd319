"""The flow as a deployment served from this machine, and a server to serve it to."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgestill.flows.config.model import RunConfig
from edgestill.flows.prefect.confinement import code_in, confine, paths_in, services_in
from edgestill.flows.prefect.launch import in_prefects_folder, require_prefect, require_server
from edgestill.flows.prefect.server import is_loopback, run_server
from edgestill.flows.terminal import say
from edgestill.pipeline.errors import UserError

_QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def serve_flow(
    config: RunConfig, out: Path, *, name: str, cron: str | None, limit: int, allow: Sequence[Path] = ()
) -> None:
    """Serve `compress` until interrupted.

    Args:
        allow: folders that parameters may name, beside `out` and what the configuration names.

    Raises:
        UserError: no Prefect server is named or answers, or the cron string is none.
    """
    require_prefect()
    given = {"config": config}
    confine([out, *allow, *(path for _, path in paths_in(config))], [*code_in(given), *services_in(given)])
    parameters = {"config": config.model_dump(mode="json"), "out": str(out.resolve())}
    with in_prefects_folder():
        _serve(parameters, name, cron, limit)


def _serve(parameters: dict[str, Any], name: str, cron: str | None, limit: int) -> None:
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise UserError(
            "no Prefect server is named: start one with `edgestill ui`, then "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api` and serve again"
        )
    _require_password(url)
    require_server(url)
    _check_cron(cron)
    from prefect.types.entrypoint import EntrypointType

    from edgestill.flows.prefect.flow import compress

    by_module = EntrypointType.MODULE_PATH  # by its file, the folder of our modules would come first on the path
    compress.serve(name=name, cron=cron, parameters=parameters, limit=limit, entrypoint_type=by_module)


def start_server(host: str, port: int, more_hosts: Sequence[str] = ()) -> None:
    """Run a Prefect server and its UI in the foreground; says so and stops where one answers already.

    Args:
        more_hosts: names besides the address that clients may ask for.

    Raises:
        UserError: the server did not start.
    """
    require_prefect()
    url = f"http://{host}:{port}/api"
    hint = f"UI http://{host}:{port}\nin another terminal: export PREFECT_API_URL={url}; edgestill serve"
    if _answers(url):
        say(f"a Prefect server is running already\n{hint}")
        return
    say(f"starting a Prefect server; stop it with Ctrl-C\n{hint}")
    os.environ.update({**_QUIET, **os.environ})
    with in_prefects_folder():
        run_server(host, port, more_hosts)


def _answers(url: str) -> bool:
    import httpx  # Prefect's own client

    try:
        return httpx.get(f"{url}/health", timeout=3).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _require_password(url: str) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    host = urlsplit(url).hostname or ""
    if is_loopback(host) or PREFECT_API_AUTH_STRING.value() is not None or PREFECT_API_KEY.value() is not None:
        return
    raise UserError(
        f"the Prefect server at {host} can be reached from other machines, and whoever reaches it starts runs here: "
        "give it a password (PREFECT_SERVER_API_AUTH_STRING), and this process too (PREFECT_API_AUTH_STRING)"
    )


def _check_cron(cron: str | None) -> None:
    if cron is None:
        return
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron)
    except (ValidationError, ValueError) as error:
        raise UserError(f"--cron {cron!r} is no cron string; five fields are needed, such as '0 2 * * *'") from error
