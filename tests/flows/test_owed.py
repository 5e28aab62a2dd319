"""Ends of flow runs that a server missed: kept until it has them."""

import asyncio
import json
import os
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from edgestill.flows.prefect.owed import forget, owe, settle

URL = "http://127.0.0.1:4200/api"


class Server:
    """The part of Prefect's client that settling uses, with flow runs in some state."""

    def __init__(self, url: str = URL, is_final: bool = False, is_away: bool = False) -> None:
        self.api_url, self.is_final, self.is_away = url, is_final, is_away
        self.told: dict[UUID, Any] = {}

    async def read_flow_run(self, identity: UUID) -> Any:
        if self.is_away:
            raise httpx.ConnectError("away")
        return SimpleNamespace(id=identity, state=SimpleNamespace(is_final=lambda: self.is_final))

    async def set_flow_run_state(self, identity: UUID, state: Any, force: bool) -> None:
        assert force
        self.told[identity] = state


@pytest.fixture
def owed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> UUID:
    """A flow run whose end is owed to the server by a process that is gone."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    identity = uuid4()
    with temporary_settings({PREFECT_API_URL: URL}):
        owe(str(identity), "the run is finished")
    (note,) = tmp_path.glob("*/*.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"process": 2**22 + 1}))
    return identity


def test_a_server_that_is_back_is_told_once(owed: UUID) -> None:
    server = Server()
    assert asyncio.run(settle(server)) == 1
    assert server.told[owed].is_completed()
    assert server.told[owed].message == "the run is finished (told late)"
    assert asyncio.run(settle(server)) == 0


def test_a_server_that_is_still_away_or_another_one_leaves_the_note(owed: UUID) -> None:
    with pytest.raises(httpx.ConnectError):
        asyncio.run(settle(Server(is_away=True)))
    assert asyncio.run(settle(Server("http://elsewhere/api"))) == 0
    assert asyncio.run(settle(Server())) == 1


def test_an_end_that_the_server_knows_is_not_told_again(owed: UUID) -> None:
    server = Server(is_final=True)
    assert asyncio.run(settle(server)) == 0
    assert server.told == {}
    assert asyncio.run(settle(Server())) == 0


@pytest.mark.parametrize(
    "damage", [{"process": None}, {"process": 10**30}, {"message": None, "process": "x"}, {"url": [1]}]
)
def test_a_damaged_note_is_passed_over_or_told(owed: UUID, tmp_path, damage: dict[str, Any]) -> None:
    (note,) = tmp_path.glob("*/*.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | damage))
    for name, text in (("a", "[]"), ("b", "[" * 10**5), ("c", json.dumps({"url": URL})), ("d", "{")):
        (note.parent / f"{name}.json").write_text(text)
    assert asyncio.run(settle(Server())) == ("url" not in damage)


def test_a_process_at_work_tells_its_own_end(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    identity = uuid4()
    with temporary_settings({PREFECT_API_URL: URL}):
        owe(str(identity), "no budget fits", is_done=False)
    assert json.loads(next(tmp_path.glob("*/*.json")).read_text())["process"] == os.getpid()
    assert asyncio.run(settle(Server())) == 0
    forget(str(identity))
    assert list(tmp_path.glob("*/*.json")) == []
