"""`edgestill ui` and `edgestill serve` against a real local Prefect server."""

import base64
import datetime
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
import psutil
import pytest
import yaml
from browser import CHROMIUM, browser
from inbox import inbox

from edgestill.flows.chain import stage_names
from edgestill.flows.config import RunConfig
from edgestill.flows.prefect.notify import TARGETS, notify
from edgestill.flows.registry.book import read_book

ROOT = Path(__file__).resolve().parents[2]
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
    arguments = ["serve", *tiny_arguments(), "--cron", "0 2 * * *", "--timezone", "Asia/Tokyo", "--out", str(out)]
    process = started(arguments, command_environment | {"PREFECT_API_URL": server}, out / "log", planted.folder)
    try:
        name = f"{server}/deployments/name/compress/tiny"
        yield wait_for(lambda: (r := httpx.get(name)).is_success and r.json(), 60, "deployment")
    finally:
        stopped(process)


def test_a_block_of_the_server_takes_a_notification_and_one_that_is_not_there_is_told(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with inbox() as (port, told), temporary_settings({PREFECT_API_URL: server}):
        block: Any = CustomWebhookNotificationBlock(
            name="team",
            url=f"http://127.0.0.1:{port}/",
            json_data={"of": "{{subject}}", "text": "{{body}}"},
        )
        block.save("team", _sync=True)
        monkeypatch.setenv(TARGETS, "block:custom-webhook/team block:custom-webhook/nobody")
        said = notify("promoted", "run a: promoted; the first one")
    assert told == [{"of": "edgestill: a student was promoted", "text": "run a: promoted; the first one"}]
    assert [sentence.partition(" (")[0] for sentence in said] == [
        f"target 2 of {TARGETS} did not take the notification"
    ]


def test_the_cron_schedule_has_created_its_next_runs(server: str, deployment: dict[str, Any]) -> None:
    wanted = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": ["SCHEDULED"]}}}}

    def scheduled() -> list[str]:
        found = httpx.post(f"{server}/flow_runs/filter", json=wanted).json()
        return [run["expected_start_time"] for run in found if run["auto_scheduled"]]

    times = wait_for(scheduled, 60, "scheduled run")
    assert all("T17:00:00" in moment for moment in times)  # UTC: 02:00 in Tokyo


def test_the_form_of_the_deployment_is_the_typed_configuration(deployment: dict[str, Any]) -> None:
    parts = deployment["parameter_openapi_schema"]["properties"]
    assert list(parts) == ["settings", "resume"]
    shown = parts["settings"]["properties"]
    assert "lelp" in shown["methods"]["items"]["enum"]
    assert shown["max_params"]["description"] == "maximum number of trainable parameters"
    assert shown["max_params"]["default"] == 26000


def test_every_part_of_the_chain_is_a_deployment(server: str, deployment: dict[str, Any]) -> None:
    wanted = {"compress", "search", "distill", "export", "profile", "rank-check"}
    flows = f"{server}/flows/filter"
    wait_for(lambda: wanted <= {one["name"] for one in httpx.post(flows, json={}).json()}, 60, "deployment of each")


def test_serve_says_its_names_its_zone_and_its_next_run(deployment: dict[str, Any], out: Path) -> None:
    said = wait_for(lambda: (t := (out / "log").read_text()).count("next run") and t, 60, "next run")
    assert "compress/tiny" in said
    assert "0 2 * * * in Asia/Tokyo: the next run is at" in said
    assert "02:00 JST" in said


def test_a_second_serve_of_the_name_is_refused_and_the_first_goes_on(
    server: str, deployment: dict[str, Any], command_environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "edgestill", "serve", "--set", "name=tiny", "--out", str(tmp_path)]
    environment = command_environment | {"PREFECT_API_URL": server}
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert second.returncode == 2
    assert "the name 'tiny' is served already" in second.stderr
    again = httpx.get(f"{server}/deployments/{deployment['id']}").json()
    assert not again["paused"]
    assert [one["active"] for one in again["schedules"]] == [True]


@pytest.mark.parametrize(
    "config", [{"seed": "x"}, {"sede": 1}, {"search": {"scorer": "nope"}}, {"data": {"name": "nothing"}}]
)
def test_a_bad_parameter_is_refused(config: dict[str, Any], server: str, deployment: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{server}/deployments/{deployment['id']}/create_flow_run", json={"parameters": {"config": config}}
    )
    assert answer.status_code in (409, 422), answer.text


def test_a_bad_form_is_refused_in_the_command_lines_words(server: str, deployment: dict[str, Any]) -> None:
    settings = {"methods": ["kd", "lelp"]}
    answer = httpx.post(
        f"{server}/deployments/{deployment['id']}/create_flow_run", json={"parameters": {"settings": settings}}
    )
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("distill.methods: methods 'kd' and 'lelp' both fill the slot 'target'")


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
    create = f"{server}/deployments/{deployment['id']}/create_flow_run"
    made = wait_for(lambda: (r := httpx.post(create, json={"parameters": parameters})).is_success and r, 30, "run")
    run = f"{server}/flow_runs/{made.json()['id']}"
    state = wait_for(lambda: (s := httpx.get(run).json()["state"])["type"] in ("FAILED", "COMPLETED") and s, 200, "end")
    assert "outside the folders of this deployment" in state["message"]
    logs = httpx.post(f"{server}/logs/filter", json={"logs": {"flow_run_id": {"any_": [made.json()["id"]]}}})
    assert "root:x" not in state["message"] + logs.text
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture(scope="module")
def night(server: str, deployment: dict[str, Any]) -> dict[str, Any]:
    """The flow run that was made of four scheduled ones that were due at once, finished; the others were skipped."""
    now = datetime.datetime.now(datetime.UTC)
    late = {"start_time": (now - datetime.timedelta(days=5)).isoformat(), "min_time": 1, "min_runs": 4, "max_runs": 4}
    schedule = f"{server}/deployments/{deployment['id']}/schedule"
    wait_for(lambda: httpx.post(schedule, json=late).is_success, 60, "schedule")  # 503 while its database is busy
    due = {"deployment_id": {"any_": [deployment["id"]]}, "expected_start_time": {"before_": now.isoformat()}}

    def nights() -> list[dict[str, Any]]:
        found = httpx.post(f"{server}/flow_runs/filter", json={"flow_runs": due}).json()
        runs = [run for run in found if run["auto_scheduled"]]
        return runs if all(run["state"]["type"] in ENDS for run in runs) else []

    runs = wait_for(nights, 240, "end of the nights")
    assert sorted(run["state"]["name"] for run in runs) == ["Completed", *["Skipped"] * 3], [r["state"] for r in runs]
    return next(run for run in runs if run["state"]["name"] == "Completed")


ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def test_of_the_nights_that_are_due_the_last_is_made(night: dict[str, Any]) -> None:
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(night["expected_start_time"])
    assert age < datetime.timedelta(days=2)


def test_a_night_leaves_its_bundle_and_runs_nothing_of_the_folder(
    server: str, night: dict[str, Any], out: Path, planted: Any
) -> None:
    assert night["name"] == "tiny"
    (bundle,) = out.glob("*/bundle/bundle.json")
    tasks = httpx.post(f"{server}/task_runs/filter", json={"flow_runs": {"id": {"any_": [night["id"]]}}})
    assert sorted(found["name"] for found in tasks.json()) == sorted([*NAMES, "warm_start"])
    assert yaml.safe_load((bundle.parent.parent / "config.yaml").read_text())["name"] == "tiny"
    assert planted.ran == []


def test_a_nights_artifacts_show_verdicts_candidates_and_the_promotion_and_no_path(
    server: str, night: dict[str, Any], out: Path
) -> None:
    wanted = {"artifacts": {"flow_run_id": {"any_": [night["id"]]}}}
    found = {one["key"]: one["data"] for one in httpx.post(f"{server}/artifacts/filter", json=wanted).json()}
    kind, _, picture = found["edgestill-pareto"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(picture).startswith(b"<svg width=")
    assert "**Formats**" in found["edgestill-run"]
    assert "edgestill-progress" in found
    assert "promoted; the first one" in found["edgestill-registry"]
    assert not [key for key, data in found.items() if str(out) in str(data)]
    assert read_book(out).current == next(out.glob("*/bundle")).parent.name


@pytest.mark.usefixtures("night")
def test_no_secret_is_in_what_a_night_wrote_nor_in_what_the_server_keeps(
    out: Path, told_secrets, command_environment: dict[str, str]
) -> None:
    assert "did not take the notification" in (out / "log").read_text()  # the first promotion was told to nobody
    assert told_secrets(out, Path(command_environment["PREFECT_HOME"])) == []


@pytest.mark.usefixtures("night")
def test_a_deployment_that_takes_a_run_goes_on_from_it_when_the_command_line_starts_it(
    server: str, command_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = command_environment | {"PREFECT_API_URL": server}
    command = [sys.executable, "-m", "prefect", "deployment", "run", "profile/tiny", "-p", "run=latest", "--watch"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = {"flows": {"name": {"any_": ["profile"]}}, "deployments": {"name": {"any_": ["tiny"]}}}
    (run,) = httpx.post(f"{server}/flow_runs/filter", json=wanted).json()
    assert run["state"]["type"] == "COMPLETED", run["state"]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.usefixtures("night")
def test_a_person_reads_the_form_starts_a_run_from_one_and_sees_its_end_and_its_artifacts(
    server: str, deployment: dict[str, Any], tmp_path: Path
) -> None:
    pages, submit = server.removesuffix("/api"), "[...document.querySelectorAll('button')].find(b => {})?.click()"
    text = "document.body.innerText"
    other = httpx.get(f"{server}/deployments/name/export/tiny").json()["id"]
    with browser(tmp_path) as page:
        page.open(f"{pages}/deployments/deployment/{deployment['id']}/run")
        page.wait_for(f"{text}.includes('maximum number of trainable parameters')")
        shown = page.js(text)
        assert shown.index("Data\n") < shown.index("Teacher\n") < shown.index("Budget: parameters")
        assert shown.count("(Optional)") < 8
        assert "26000" in page.js("[...document.querySelectorAll('input')].map(one => one.value)")
        page.open(f"{pages}/deployments/deployment/{other}/run")
        page.wait_for(f"{text}.includes('the run to go on with')")
        page.js(submit.format("b.innerText.trim() == 'Submit'"))
        wanted = {"flows": {"name": {"any_": ["export"]}}}
        (run,) = wait_for(lambda: httpx.post(f"{server}/flow_runs/filter", json=wanted).json(), 60, "run of the form")
        page.open(f"{pages}/runs/flow-run/{run['id']}?tab=Artifacts")
        page.wait_for(f"{text}.includes('Completed')", 120)
        page.js(
            "[...document.querySelectorAll('*')].filter(one => !one.children.length && one.textContent.trim() == "
            "'Artifacts').forEach(one => one.click())"
        )
        page.wait_for(f"{text}.includes('the stages that the run has finished')", 60)


def test_a_worker_of_a_process_pool_makes_what_prefect_yaml_deploys(
    server: str, finished_run: Path, command_environment: dict[str, str]
) -> None:
    environment = command_environment | {"PREFECT_API_URL": server, "EDGESTILL_RUNS": str(finished_run.parent)}

    def prefect(*arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    prefect("work-pool", "create", "--type", "process", "edgestill")
    prefect("deploy", "--all")
    prefect("deployment", "run", "profile/edgestill", "-p", f"run={finished_run.name}")
    prefect("worker", "start", "--pool", "edgestill", "--run-once")
    wanted = {"flows": {"name": {"any_": ["profile"]}}, "deployments": {"name": {"any_": ["edgestill"]}}}
    (run,) = httpx.post(f"{server}/flow_runs/filter", json=wanted).json()
    assert run["state"]["type"] == "COMPLETED", run["state"]


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


def test_a_server_with_a_password_answers_this_accounts_commands_alone(
    finished_run: Path, command_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = command_environment | {"PREFECT_HOME": str(tmp_path / "home")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    process = started(["ui", "--auth", "--port", str(port)], environment, tmp_path / "log", tmp_path)
    try:
        wait_for(lambda: httpx.get(f"{url}/health").is_success, 120, "Prefect server")
        secret = (tmp_path / "home" / "edgestill-auth").read_text().strip()
        assert secret not in (tmp_path / "log").read_text()
        assert httpx.post(f"{url}/flow_runs/filter", json={}).status_code == 401
        assert httpx.post(f"{url}/flow_runs/filter", json={}, auth=("edgestill", "wrong")).status_code == 401
        command = [sys.executable, "-m", "edgestill", "resume", str(finished_run)]
        own = environment | {"PREFECT_API_URL": url}
        others = own | {"PREFECT_HOME": command_environment["PREFECT_HOME"]}
        refused = subprocess.run(command, env=others, capture_output=True, text=True, timeout=120)
        assert refused.returncode == 2
        assert "asks for another user and password: set PREFECT_API_AUTH_STRING" in refused.stderr
        done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        (run,) = httpx.post(f"{url}/flow_runs/filter", json={}, auth=tuple(secret.split(":", 1))).json()  # type: ignore[arg-type]
        assert run["state"]["type"] == "COMPLETED"
    finally:
        stopped(process)


_WITHOUT_A_SERVER = """
import os, signal, sys, time
import psutil
from edgestill.flows.prefect import flow
work = flow.run_part
def without_a_server(*given):
    os.kill({server}, signal.SIGTERM)
    while psutil.pid_exists({server}) and psutil.Process({server}).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.1)
    return work(*given)
flow.run_part = without_a_server
sys.argv = ["edgestill", "resume", {run!r}]
from edgestill.flows.cli.main import main
main()
"""


def test_work_and_its_last_words_outlive_the_server_which_is_told_later(
    server: str, finished_run: Path, command_environment: dict[str, str], tmp_path: Path
) -> None:
    port = int(server.removesuffix("/api").rsplit(":", 1)[1])
    (ui,) = [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [])[-1:] == [str(port)]]
    environment = command_environment | {"PREFECT_API_URL": server}
    script = _WITHOUT_A_SERVER.format(server=ui.pid, run=str(finished_run))
    with socket.create_connection(("127.0.0.1", port)) as page:  # an open page must not keep the server alive
        page.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n")
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
    assert done.returncode == 0, done.stderr
    assert "bundle  " in done.stdout
    assert "the Prefect server does not answer" in done.stderr
    assert time.monotonic() - began < 100
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))  # nothing is left on the port
    process = started(["ui", "--port", str(port)], command_environment, tmp_path / "log", tmp_path)
    try:
        wait_for(lambda: httpx.get(f"{server}/health").is_success, 120, "Prefect server")
        wanted = {"flow_runs": {"name": {"any_": [finished_run.name]}}, "sort": "START_TIME_DESC", "limit": 1}

        def late() -> Any:
            (run,) = httpx.post(f"{server}/flow_runs/filter", json=wanted).json()
            return run["state"]["type"] == "COMPLETED" and run["state"]["message"]

        assert "told late" in wait_for(late, 60, "state that is set right")
    finally:
        stopped(process)
