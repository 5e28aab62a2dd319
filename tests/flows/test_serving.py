"""Names of what is served: one process of all machines has each."""

import datetime
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from edgestill.flows.config import RunConfig
from edgestill.flows.prefect import serve
from edgestill.flows.prefect.names import CATCH_UP
from edgestill.pipeline.errors import UserError

URL = "http://127.0.0.1:4200/api"


@pytest.fixture
def here(tmp_path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """In Prefect's folder, with no deployment on the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serve, "_found", lambda kind, name: None)
    return monkeypatch


def deployment(host: str, seconds_ago: float | None) -> Any:
    now = datetime.datetime.now(datetime.UTC)
    polled = None if seconds_ago is None else now - datetime.timedelta(seconds=seconds_ago)
    return SimpleNamespace(tags=["edgestill", f"served from {host}"], last_polled=polled)


def enter(name: str) -> str:
    with serve._alone(name, URL):
        return name


def test_a_name_is_served_once_on_this_machine_and_free_again_afterwards(here: pytest.MonkeyPatch) -> None:
    with serve._alone("night", URL):
        assert enter("other") == "other"
        with pytest.raises(UserError, match=r"'night' is served already, by an `edgestill serve` of this machine"):
            enter("night")
    assert enter("night") == "night"


def test_a_name_that_another_machine_serves_is_refused_while_it_is_seen(here: pytest.MonkeyPatch) -> None:
    here.setattr(serve, "_found", lambda kind, name: deployment("cellar", 5))
    with pytest.raises(UserError, match=r"'night' is served already, from cellar; give this one another --name"):
        enter("night")
    for gone in (deployment("cellar", 90), deployment("cellar", None), deployment(socket.gethostname(), 5)):
        here.setattr(serve, "_found", lambda kind, name, gone=gone: gone)
        assert enter("night") == "night"


class Client:
    """The part of Prefect's client that counts missed runs and makes one up for them."""

    def __init__(self, missed: int) -> None:
        self.missed, self.made = missed, list[tuple[str, list[str]]]()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *given: object) -> None:
        pass

    def read_flow_runs(self, flow_run_filter: Any) -> list[Any]:
        return [SimpleNamespace(auto_scheduled=True)] * self.missed + [SimpleNamespace(auto_scheduled=False)]

    def create_flow_run_from_deployment(self, deployment: str, tags: list[str]) -> None:
        self.made.append((deployment, tags))


@pytest.mark.parametrize(("missed", "made"), [(0, 0), (1, 1), (4, 1)])
@pytest.mark.parametrize("is_scheduled", [True, False])
def test_runs_missed_while_nobody_served_are_made_up_for_by_one(
    here: pytest.MonkeyPatch, capsys, missed: int, made: int, is_scheduled: bool
) -> None:
    client = Client(missed)
    old = SimpleNamespace(id=uuid4(), name="night", paused=False, schedules=[])
    here.setattr("prefect.client.orchestration.get_client", lambda sync_client: client)
    here.setattr(serve, "_found", lambda kind, name: old)
    here.setattr(serve, "make", lambda flow, *given: SimpleNamespace(apply=lambda: f"deployment of {flow}"))
    here.setattr(serve, "_flow", lambda kind: kind)
    schedule = serve.Schedule("0 2 * * *", "UTC") if is_scheduled else None
    serve._deployed(RunConfig(), serve.Served("night", Path("runs"), schedule, 1))
    assert client.made == [("deployment of compress", [CATCH_UP])] * made * is_scheduled
    said = capsys.readouterr().out
    assert ("one makes up for it" in said) == bool(made and is_scheduled)
    assert ("4 scheduled runs were missed" in said) == (missed == 4 and is_scheduled)
