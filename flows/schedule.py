"""The flow as a deployment served from this machine, and a server to serve it to."""

import os
import subprocess
import sys
from pathlib import Path

from flows.config import RunConfig
from flows.launch import require_prefect, require_server
from flows.terminal import say
from pipeline.errors import UserError

_QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def serve_flow(config: RunConfig, out: Path, *, name: str, cron: str | None, limit: int) -> None:
    """Serve `compress` until interrupted.

    Raises:
        UserError: no Prefect server is named or answers, or the cron string is none.
    """
    require_prefect()
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise UserError(
            "no Prefect server is named: start one with `edgestill ui`, then "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api` and serve again"
        )
    require_server(url)
    _check_cron(cron)
    from flows.compress import compress

    parameters = {"config": config.model_dump(mode="json"), "out": str(out.resolve())}
    compress.serve(name=name, cron=cron, parameters=parameters, limit=limit)


def start_server(host: str, port: int) -> None:
    """Run a Prefect server and its UI in the foreground; says so and stops where one answers already.

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
    # On a port other than 4200 the UI must be told where its API is.
    environment = {**_QUIET, **os.environ, "PREFECT_SERVER_UI_API_URL": url}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    code = subprocess.call(command, env=environment)
    if code not in (0, -2, 130):
        raise UserError(f"the Prefect server ended with code {code}; is port {port} taken? try another --port")


def _answers(url: str) -> bool:
    import httpx  # Prefect's own client

    try:
        return httpx.get(f"{url}/health", timeout=3).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _check_cron(cron: str | None) -> None:
    if cron is None:
        return
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron)
    except (ValidationError, ValueError) as error:
        raise UserError(f"--cron {cron!r} is no cron string; five fields are needed, such as '0 2 * * *'") from error
