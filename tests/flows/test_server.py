"""`edgestill ui` and `edgestill serve` against a real local Prefect server."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from edgestill.flows.chain import stage_names
from edgestill.flows.config import RunConfig

NAMES = stage_names(RunConfig())  # of a run as configured by default
pytestmark = [pytest.mark.engines, pytest.mark.timeout(280)]


def wait_for(ready: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := ready():
                return found
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"no {what} within {seconds} s")


def started(arguments: list[str], environment: dict[str, str], log: Path, cwd: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as out:
        command = [sys.executable, "-m", "edgestill", *arguments]
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True, cwd=cwd)


def stopped(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def server(
    command_environment: dict[str, str], planted: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A Prefect server as `edgestill ui` starts it in a hostile folder, on a free port; its API address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("ui") / "log"
    process = started(["ui", "--port", str(port)], command_environment, log, planted.folder)
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: httpx.get(f"{url}/health").is_success, 120, "Prefect server")
        yield url
    finally:
        stopped(process)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def deployment(
    server: str,
    out: Path,
    command_environment: dict[str, str],
    planted: Any,
    tiny_arguments: Callable[..., list[str]],
) -> Iterator[dict[str, Any]]:
    """The flow as `edgestill serve --cron` deploys it from a hostile folder."""
    arguments = ["serve", *tiny_arguments(), "--cron", "0 2 * * *", "--out", str(out)]
    process = started(arguments, command_environment | {"PREFECT_API_URL": server}, out / "log", planted.folder)
    try:
        name = f"{server}/deployments/name/compress/edgestill"
        yield wait_for(lambda: (r := httpx.get(name)).is_success and r.json(), 60, "deployment")
    finally:
        stopped(process)


def test_the_cron_schedule_has_created_its_next_runs(server: str, deployment: dict[str, Any]) -> None:
    wanted = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": ["SCHEDULED"]}}}}

    def scheduled() -> list[str]:
        found = httpx.post(f"{server}/flow_runs/filter", json=wanted).json()
        return [run["expected_start_time"] for run in found if run["auto_scheduled"]]

    times = wait_for(scheduled, 60, "scheduled run")
    assert all("T02:00:00" in moment for moment in times)


def test_the_form_of_the_deployment_is_the_typed_configuration(deployment: dict[str, Any]) -> None:
    schema = deployment["parameter_openapi_schema"]
    assert "config" in schema["properties"]
    definitions = schema["definitions"]
    assert "diswot" in definitions["SearchConfig"]["properties"]["scorer"]["enum"]
    assert definitions["Budget"]["properties"]["max_params"]["description"] == "maximum number of trainable parameters"


@pytest.mark.parametrize(
    "config", [{"seed": "x"}, {"sede": 1}, {"search": {"scorer": "nope"}}, {"data": {"name": "nothing"}}]
)
def test_a_bad_parameter_is_refused(config: dict[str, Any], server: str, deployment: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{server}/deployments/{deployment['id']}/create_flow_run", json={"parameters": {"config": config}}
    )
    assert answer.status_code in (409, 422), answer.text


def test_pages_of_others_and_other_names_get_no_answer(server: str, deployment: dict[str, Any]) -> None:
    create = f"{server}/deployments/{deployment['id']}/create_flow_run"
    evil = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    assert httpx.post(create, content=b"{}", headers=evil).status_code == 403
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    preflight = httpx.options(create, headers=asked)
    assert preflight.status_code == 403
    assert "access-control-allow-origin" not in preflight.headers
    assert httpx.get(f"{server}/health", headers={"Host": "evil.example"}).status_code == 403
    own = httpx.get(f"{server}/health", headers={"Origin": server.removesuffix("/api")})
    assert own.headers["access-control-allow-origin"] == server.removesuffix("/api")


def test_a_run_that_names_files_elsewhere_fails_and_shows_nothing_of_them(
    server: str, deployment: dict[str, Any], tmp_path: Path
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("root:x:0:0\n")
    parameters = {"config": {"data": {"name": "text", "path": str(secret)}}, "out": str(tmp_path / "elsewhere")}
    created = httpx.post(f"{server}/deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters})
    assert created.is_success, created.text
    run = f"{server}/flow_runs/{created.json()['id']}"
    state = wait_for(lambda: (s := httpx.get(run).json()["state"])["type"] in ("FAILED", "COMPLETED") and s, 200, "end")
    assert "outside the folders of this deployment" in state["message"]
    logs = httpx.post(f"{server}/logs/filter", json={"logs": {"flow_run_id": {"any_": [created.json()["id"]]}}})
    assert "root:x" not in state["message"] + logs.text
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_triggered_through_the_api_completes_leaves_its_bundle_and_runs_nothing_of_the_folder(
    server: str, deployment: dict[str, Any], out: Path, planted: Any
) -> None:
    created = httpx.post(f"{server}/deployments/{deployment['id']}/create_flow_run", json={})
    assert created.is_success, created.text
    run = f"{server}/flow_runs/{created.json()['id']}"
    finished = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    state = wait_for(lambda: (s := httpx.get(run).json()["state"])["type"] in finished and s, 200, "end of the run")
    assert state["type"] == "COMPLETED", f"{state['message']}\n{(out / 'log').read_text()[-3000:]}"
    assert httpx.get(run).json()["name"] == "tiny"
    (bundle,) = out.glob("*/bundle/bundle.json")
    tasks = httpx.post(f"{server}/task_runs/filter", json={"flow_runs": {"id": {"any_": [created.json()["id"]]}}})
    assert sorted(found["name"] for found in tasks.json()) == sorted(NAMES)
    assert yaml.safe_load((bundle.parent.parent / "config.yaml").read_text())["name"] == "tiny"
    assert planted.ran == []


def test_run_is_a_flow_run_of_the_server_that_prefect_api_url_names(
    server: str, finished_run: Path, command_environment: dict[str, str]
) -> None:
    environment = command_environment | {"PREFECT_API_URL": server}
    command = [sys.executable, "-m", "edgestill", "resume", str(finished_run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    runs = httpx.post(f"{server}/flow_runs/filter", json={"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}})
    (found,) = (run for run in runs.json() if run["parameters"].get("resume") == str(finished_run))
    assert found["name"] == finished_run.name


def test_ui_starts_no_second_server(server: str, edgestill) -> None:
    port = server.removesuffix("/api").rsplit(":", 1)[1]
    again = edgestill("ui", "--port", port)
    assert again.returncode == 0
    assert "running already" in again.stdout


def test_a_flow_run_needs_no_server_set_up_by_hand(finished_run: Path, edgestill) -> None:
    done = edgestill("resume", str(finished_run), "--prefect")
    assert done.returncode == 0, done.stderr
    assert "Finished in state Completed" in done.stderr


def test_serving_without_a_server_says_how_to_start_one(edgestill, command_environment: dict[str, str]) -> None:
    assert "edgestill ui" in edgestill("serve", "--preset", "digits").stderr
    environment = command_environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    command = [sys.executable, "-m", "edgestill", "serve"]
    failed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api" in failed.stderr


def test_a_run_that_is_to_be_a_flow_run_of_a_server_that_is_down_says_so(
    command_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = command_environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    command = [
        sys.executable,
        "-m",
        "edgestill",
        "run",
        "--preset",
        "digits",
        "--out",
        str(tmp_path / "runs"),
    ]
    failed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: no Prefect server answers at http://127.0.0.1:9/api; start it with")
    assert not (tmp_path / "runs").exists()
    unnamed = command_environment | {"PREFECT_API_URL": ""}
    command = [sys.executable, "-m", "edgestill", "serve"]
    failed = subprocess.run(command, env=unnamed, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 2
    assert "no Prefect server is named" in failed.stderr


def test_a_cron_string_that_is_none_is_refused(server: str, command_environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "edgestill", "serve", "--cron", "nightly"]
    environment = command_environment | {"PREFECT_API_URL": server}
    failed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 2
    assert "'nightly' is no cron string" in failed.stderr
