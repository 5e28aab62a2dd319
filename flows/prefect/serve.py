"""The flows as deployments served from this machine, and a server to serve them to."""

import asyncio
import contextlib
import datetime
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from edgestill.flows.config.model import RunConfig
from edgestill.flows.prefect.auth import guard, is_loopback
from edgestill.flows.prefect.clock import local_timezone, next_runs, require_timezone
from edgestill.flows.prefect.confinement import code_in, confine, paths_in, services_in
from edgestill.flows.prefect.deployments import KINDS, Schedule, make
from edgestill.flows.prefect.launch import in_prefects_folder, require_leave, require_prefect
from edgestill.flows.prefect.names import CATCH_UP, RETENTION
from edgestill.flows.prefect.notify import require_targets
from edgestill.flows.prefect.server import run_server
from edgestill.flows.registry.retention import Retention
from edgestill.flows.terminal import say
from edgestill.pipeline.errors import UserError
from edgestill.pipeline.frozen import digest

_QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
_NIGHTLY = "compress"  # the flow that a schedule starts
_HOST = "served from "  # begins the tag with the serving machine's name
_SEEN_S = 60  # after its last poll, a deployment counts as served
_SETTLED_S = 120  # the time in which a server that starts is looked for


class Served(NamedTuple):
    """Names and settings of the deployments that are served."""

    name: str
    out: Path
    schedule: Schedule | None
    limit: int


def serve_flows(
    config: RunConfig, out: Path, *, name: str | None, cron: str | None, timezone: str | None, limit: int,
    keep: Retention, allow: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Serve the flows until interrupted.

    Args:
        name: of the deployments; None: the configuration's.
        timezone: of the schedule; None: this machine's.
        keep: limits on the nights' runs that stay.
        allow: folders that parameters may name, beside `out` and what the configuration names.

    Raises:
        UserError: no Prefect server is named or answers, the schedule is none, or the name is served already.
    """
    require_prefect()
    given = {"config": config}
    confine([out, *allow, *(path for _, path in paths_in(config))], [*code_in(given), *services_in(given)])
    os.environ[RETENTION] = keep.model_dump_json()
    targets = require_targets()
    zone = local_timezone() if timezone is None else require_timezone(timezone)
    out.mkdir(parents=True, exist_ok=True)
    served = Served(name or config.name, out.resolve(), Schedule(cron, zone) if cron else None, limit)
    with in_prefects_folder():
        url = _server()
        times = next_runs(cron, zone, 2) if cron else []
        with _alone(served.name, url):
            deployments = _deployed(config, served)
            for line in _opening(served, [f"{when:%Y-%m-%d %H:%M %Z}" for when in times]):
                say(line)
            if targets and served.schedule:
                say(f"failures, promotions and drift are told to {targets} target{'s' if targets > 1 else ''}")
            _work(served, deployments)
    if served.schedule:
        say("the schedule stays on the server: what is missed until it is served again is made up for by one run")


def _server() -> str:
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise UserError(
            "no Prefect server is named: start one with `edgestill ui`, then "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api` and serve again"
        )
    _require_password(url)
    require_leave(url)
    return str(url)


@contextlib.contextmanager
def _alone(name: str, url: str) -> Iterator[None]:
    """Reserve the name on this machine; refuse one that another machine serves."""
    lock = FileLock(f"edgestill-serves-{digest(name, url)[:16]}.lock")  # in Prefect's folder
    way_out = "give this one another --name, or stop that one"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"the name {name!r} is served already, by an `edgestill serve` of this machine; {way_out}"
        ) from None
    try:
        other = _other_machine(name)
        if other is not None:
            raise UserError(f"the name {name!r} is served already, from {other}; {way_out}")
        yield
    finally:
        lock.release()


def _other_machine(name: str) -> str | None:
    """Name of another machine that has served the deployment within the last minute."""
    found = _found(_NIGHTLY, name)
    if found is None or found.last_polled is None or (_now() - found.last_polled).total_seconds() > _SEEN_S:
        return None
    hosts = [tag.removeprefix(_HOST) for tag in found.tags if tag.startswith(_HOST)]
    return next((host for host in hosts if host != socket.gethostname()), None)


def _found(kind: str, name: str) -> Any:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        return client.read_deployment_by_name(f"{kind}/{name}")
    return None


def _deployed(config: RunConfig, served: Served) -> dict[str, Any]:
    """Make the deployments, by the name of their flow; a schedule that is no longer wanted goes."""
    old = _found(_NIGHTLY, served.name)
    missed = _missed(old) if old is not None and served.schedule else 0
    if old is not None and old.paused and served.schedule:
        say(f"{_NIGHTLY}/{served.name} was paused; it is resumed")
    tags = [f"{_HOST}{socket.gethostname()}"]
    made = {}
    for kind in KINDS:
        schedule = served.schedule if kind == _NIGHTLY else None
        made[kind] = make(_flow(kind), served.name, config, str(served.out), schedule, tags).apply()
    if old is not None and old.schedules and served.schedule is None:
        _unschedule(old)
    if missed:
        _catch_up(made[_NIGHTLY], missed)
    return made


def _flow(kind: str) -> Any:
    from edgestill.flows.prefect import flow

    return getattr(flow, kind.replace("-", "_"))


def _missed(deployment: Any) -> int:
    """Count the scheduled runs whose time came while nobody served; Prefect forgets them when it is served again."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters

    wanted = filters.FlowRunFilter(
        deployment_id={"any_": [deployment.id]}, state={"type": {"any_": ["SCHEDULED"]}},
        expected_start_time={"before_": _now()},
    )  # fmt: skip
    with get_client(sync_client=True) as client:
        return sum(bool(run.auto_scheduled) for run in client.read_flow_runs(flow_run_filter=wanted))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _catch_up(deployment: Any, missed: int) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(deployment, tags=[CATCH_UP])
    say(f"{missed} scheduled run{'s were' if missed > 1 else ' was'} missed while nobody served; one makes up for it")


def _unschedule(deployment: Any) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for schedule in deployment.schedules:
            client.delete_deployment_schedule(deployment.id, schedule.id)
    say(f"the schedule of {_NIGHTLY}/{deployment.name} was removed, as no --cron is given")


def _opening(served: Served, times: Sequence[str]) -> Iterator[str]:
    yield f"serving {', '.join(f'{kind}/{served.name}' for kind in KINDS)}; stop with Ctrl-C"
    yield f"start a run in the UI, or by `prefect deployment run {_NIGHTLY}/{served.name}`"
    if served.schedule:
        yield f"{served.schedule.cron} in {served.schedule.timezone}: the next run is at {times[0]}, then {times[1]}"


def _work(served: Served, deployments: dict[str, Any]) -> None:
    from prefect.exceptions import TerminationSignal

    from edgestill.flows.prefect.nights import NightRunner

    runner = NightRunner(served.name, served.limit, say)
    for kind, identity in deployments.items():
        runner._deployment_registry.register_deployment(identity, served.name)
        runner._deployment_registry.register_flow(identity, _flow(kind))
    with contextlib.suppress(KeyboardInterrupt, TerminationSignal):
        asyncio.run(runner.start())


def start_server(host: str, port: int, more_hosts: Sequence[str] = (), auth: bool = False) -> None:
    """Run a Prefect server and its UI in the foreground; says so and stops where one answers already.

    Args:
        more_hosts: names besides the address that clients may ask for.
        auth: ask every client for a user and a password.

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
        if auth:
            say(f"user and password, as USER:PASSWORD, are those of {guard(Path.cwd())}")
        threading.Thread(target=_settle_with, args=(url,), daemon=True).start()
        run_server(host, port, more_hosts)


def _settle_with(url: str) -> None:
    """Tell a server that starts here how flow runs ended while it was away."""
    from edgestill.flows.prefect.owed import settle_with

    deadline = time.monotonic() + _SETTLED_S
    while time.monotonic() < deadline:
        time.sleep(2)
        if _answers(url):
            settle_with(url)
            return


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
