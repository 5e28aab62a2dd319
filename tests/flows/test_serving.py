"""Names of what is served: one process of all machines has each."""

import datetime
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from edgestill.flows.prefect import serve
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
