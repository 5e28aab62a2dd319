"""The server of `edgestill ui` answers known names and its own pages; served flow runs keep to named folders."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.prefect import confinement
from edgestill.flows.prefect.auth import is_loopback
from edgestill.flows.prefect.server import OwnPagesOnly, known_hosts, run_server
from edgestill.pipeline.errors import BudgetError, DataError, FailedError, RunDirError, UserError

OWN = ("127.0.0.1:4200", "localhost:4200", "[::1]:4200", "LOCALHOST:4200", "localhost")


async def _application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"Prefect's own answer"})


def answered(kind: str = "http", **headers: str) -> list[dict[str, Any]]:
    """What the server sends to a request with these headers."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    gate = OwnPagesOnly(_application, known_hosts("127.0.0.1", ["edge.example"]), 4200)
    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(gate(scope, None, send))
    return sent


@pytest.mark.parametrize("host", [*OWN, "edge.example:4200", "EDGE.example"])
def test_known_names_are_answered(host: str) -> None:
    assert answered(host=host)[0]["status"] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:4200",
        "127.0.0.1.evil.example",
        "evil.example@127.0.0.1",
        "localhost.evil.example:4200",
        "",
        "[",
        "10.0.0.1:4200",
        "127.0.0.2:4200",
        "localhost:x",
    ],
)
def test_a_name_that_leads_here_without_being_ours_is_refused(host: str) -> None:
    assert answered(host=host)[0]["status"] == 403


def test_a_request_without_a_host_or_with_two_is_refused() -> None:
    gate = OwnPagesOnly(_application, ["localhost"], 4200)
    assert gate.refusal([]) is not None
    assert gate.refusal([("host", "localhost:4200"), ("host", "evil.example")]) is not None


@pytest.mark.parametrize("origin", ["http://127.0.0.1:4200", "http://localhost:4200", "http://[::1]:4200"])
@pytest.mark.parametrize("host", OWN[:3])
def test_the_servers_own_pages_are_answered(host: str, origin: str) -> None:
    assert answered(host=host, origin=origin)[0]["status"] == 200


def test_the_page_of_a_proxy_that_speaks_tls_is_its_own() -> None:
    assert answered(host="edge.example", origin="https://edge.example")[0]["status"] == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:8080",
        "http://127.0.0.1",
        "https://evil.example",
        "http://localhost:4200.evil.example",
        "file://",
        "",
        "http://evil.example:4200",
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_page_of_another_origin_is_refused(kind: str, origin: str) -> None:
    sent = answered(kind, host="127.0.0.1:4200", origin=origin)
    assert sent[0].get("status", sent[0].get("code")) in (403, 1008)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_told_from_what_others_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_an_address_that_others_reach_needs_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING

    assert PREFECT_SERVER_API_AUTH_STRING.value() is None
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: pytest.fail("the server started"))
    with pytest.raises(UserError, match="set a password"):
        run_server("0.0.0.0", 0)


@pytest.fixture
def confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a deployment is confined to."""
    monkeypatch.setenv("EDGESTILL_SERVED_FOLDERS", "")
    folder = tmp_path / "served"
    folder.mkdir()
    confinement.confine([folder])
    return folder


def test_what_lies_in_a_served_folder_is_let_through(confined: Path) -> None:
    config = load_config(None, "digits", ["data.name=npz", f"data.path={confined}/x.npz"], check_files=False)
    confinement.require_inside({"config": config, "out": confined / "runs", "resume": None})


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("data={{name: npz, path: {}}}", "config.data.path"),
        ("data={{name: text, path: {}}}", "config.data.path"),
        ("data={{name: cifar, path: {}}}", "config.data.path"),
        ("teacher.weights={}", "config.teacher.weights"),
        ("search.latency={{source: model, model: {}}}", "config.search.latency.model"),
    ],
)
def test_a_file_elsewhere_is_refused_by_its_parameters_name(confined: Path, setting: str, name: str) -> None:
    config = load_config(None, "digits", [setting.format("/etc/passwd")], check_files=False)
    with pytest.raises(UserError, match=rf"^{name} is /etc/passwd, which is outside"):
        confinement.require_inside({"config": config})


@pytest.mark.parametrize(
    "setting",
    [
        "teacher=os:getcwd", "teacher=torchscript:served/x.pt", "data={name: python, code: 'os:getcwd'}",
        "teacher={name: hf, model: some/name, trust_remote_code: true}",
        "teacher={name: ensemble, members: [resnet8, {name: python, code: 'os:getcwd'}]}",
    ],
)  # fmt: skip
def test_code_is_run_only_if_it_was_served(confined: Path, tmp_path: Path, setting: str) -> None:
    given = {"config": load_config(None, "digits", [setting.replace("served", str(confined))], check_files=False)}
    with pytest.raises(UserError, match="would run code"):
        confinement.require_inside(given)
    confinement.confine([confined, Path("some/name")], [*confinement.code_in(given)])
    confinement.require_inside(given)


@pytest.mark.parametrize("setting", ["data={name: huggingface, path: /etc}", "teacher=hf:/etc"])
def test_text_that_is_a_path_is_confined_too(confined: Path, setting: str) -> None:
    config = load_config(None, "digits", [setting], check_files=False)
    with pytest.raises(UserError, match="is /etc, which is outside"):
        confinement.require_inside({"config": config})


def test_links_and_dots_do_not_lead_out(confined: Path) -> None:
    (confined / "link").symlink_to("/etc")
    for path in (confined / "link" / "passwd", confined / ".." / "other", Path("runs"), Path("/")):
        with pytest.raises(UserError, match="outside the folders"):
            confinement.require_inside({"out": path})


def test_a_tables_names_stay_in_its_folder(confined: Path) -> None:
    for name in ("/etc/passwd", "../other.csv", "a/../../b.csv"):
        with pytest.raises(UserError, match="leads out of data"):
            load_config(None, "sst2", [f"data.path={confined}", f"data.train={name}"], check_files=False)


def test_without_a_deployment_nothing_is_confined(tmp_path: Path) -> None:
    assert "EDGESTILL_SERVED_FOLDERS" not in os.environ
    confinement.require_inside({"out": Path("/"), "config": RunConfig()})
    with pytest.raises(DataError, match="root:x:0"), confinement.reticent():
        raise DataError("root:x:0")


@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize(
    ("error", "kind"),
    [(DataError("root:x:0"), UserError), (ValueError("root:x:0"), FailedError), (OSError(2, "root:x:0"), FailedError)],
)
def test_an_error_of_a_confined_run_holds_nothing_of_a_file(error: Exception, kind: type[Exception], capsys) -> None:
    with pytest.raises(kind) as raised, confinement.reticent():
        raise error
    assert "root" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert "root:x:0" in capsys.readouterr().err


@pytest.mark.usefixtures("confined")
def test_what_quotes_no_file_is_told_whole() -> None:
    with pytest.raises(BudgetError, match="nothing fits"), confinement.reticent():
        raise BudgetError("nothing fits")


def test_a_run_elsewhere_is_refused_whether_it_is_there_or_not(confined: Path) -> None:
    from edgestill.flows.prefect.flow import _begun

    for elsewhere in ("/etc", "/nowhere/at/all", "../other"):
        with pytest.raises(UserError, match=r"^run is .* outside the folders"), _begun(elsewhere, str(confined), ()):
            pass
    with pytest.raises(RunDirError, match="no run at 'night'"), _begun("night", str(confined), ()):
        pass
