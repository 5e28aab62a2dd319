"""A federation in Flower's own processes on loopback, in an environment that the project makes, and its student's run.

One more run has its clients in one process. Both end in a bundle.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edgestill.export.bundle.verify import verify
from edgestill.flows.cli.main import execute
from edgestill.flows.federation.environment import make_environment

pytest.importorskip("flwr.app")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
BRIEF = (
    "search.evaluations=2", "search.baselines=[]", "teacher.training.epochs=1", "distill.training.epochs=3",
    "profile.timing.duration_s=0.02", "profile.timing.min_samples=30",
)  # fmt: skip
LINK = """[superlink]
default = "loopback"

[superlink.loopback]
address = "127.0.0.1:{port}"
insecure = true
"""


class Federation(NamedTuple):
    folder: Path
    log: str
    rounds: list[dict]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Processes:
    """Processes of Flower, with logs of their own; all end with the test."""

    def __init__(self, commands: Path, folder: Path) -> None:
        self.commands, self.folder, self.started = commands, folder, []
        self.environment = os.environ | {
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "FLWR_HOME": str(folder / "flower-home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, name: str, *command: str) -> subprocess.Popen:
        log = (self.folder / f"{name}.log").open("w")
        process = subprocess.Popen(
            [str(self.commands / command[0]), *command[1:]],
            cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))

    def end(self) -> None:
        for process in self.started:
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """Kill a process and those that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def wait_for(what: Callable[[], object], seconds: float, processes: Processes) -> None:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError(processes.logs())
        time.sleep(0.3)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _owner(folder: Path, port: int, number: int) -> tuple[str, ...]:
    """Options of an owner's node."""
    config = f'config="{folder}/federation.yaml" data="{folder}/owner_{number}.npz"'
    return "--superlink", f"127.0.0.1:{port}", "--node-config", config


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Federation]:
    """Four owners, of whom one sends garbage and one is killed after the first round."""
    folder = tmp_path_factory.mktemp("federated")
    shutil.copytree(ROOT / "examples/federated", folder, dirs_exist_ok=True)
    subprocess.run([sys.executable, "make_data.py", "--owners", "4"], cwd=folder, check=True)
    config = (folder / "federation.yaml").read_text().replace("clients: 3", "clients: 4")
    config = config.replace("rounds: 3", "rounds: 2\n    training: {local_epochs: 1, taught_epochs: 1}")
    (folder / "federation.yaml").write_text(config.replace("deadline_s: 300", "deadline_s: 45"))
    with np.load(folder / "owner_2.npz") as held:
        np.savez(folder / "owner_2.npz", x=held["x"], y=held["y"].astype(np.float32))  # no class numbers
    processes = Processes(make_environment(shared / "flower"), folder)
    port, *others = free_ports(5)
    (folder / "flower-home").mkdir()
    (folder / "flower-home/config.toml").write_text(LINK.format(port=port))
    try:
        where = ("--insecure", "--host", "127.0.0.1")
        processes.start(
            "link", "flower-superlink", *where, "--port", str(port), "--disable-runtime-dependency-installation"
        )
        wait_for(lambda: listens(port), 60, processes)
        nodes = [
            processes.start(f"node_{n}", "flower-supernode", *where, "--port", str(other), *_owner(folder, port, n))
            for n, other in enumerate(others)
        ]
        given = f'config="{folder}/federation.yaml" out="{folder}/federation"'
        processes.start("run", "flwr", "run", "app", "loopback", "--stream", "--run-config", given)
        rounds = folder / "federation/rounds.json"
        wait_for(rounds.is_file, 240, processes)
        kill(nodes[3])
        wait_for((folder / "federation/answers.npz").is_file, 240, processes)
        yield Federation(folder, processes.logs(), json.loads(rounds.read_text()))
    finally:
        processes.end()


def test_the_rounds_go_on_without_a_killed_node_and_without_one_that_fails(federation: Federation) -> None:
    assert [one["number"] for one in federation.rounds] == [1, 2]
    first, second = ([one for one in each["clients"] if one["wrong"] is None] for each in federation.rounds)
    assert len(first) == 3, federation.log
    assert len(second) == 2, federation.log
    wrong = [one["wrong"] for one in federation.rounds[0]["clients"] if one["wrong"]]
    assert len(wrong) == 1
    assert wrong[0].startswith("failed (")
    assert all(one["received_bytes"] > 1000 for one in first)
    assert all(each["known"] > 100 for each in federation.rounds)


def test_the_answers_of_a_federation_become_a_bundle(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(federation.folder)
    settings = [*BRIEF, "distill.driver.answers=federation/answers.npz"]
    arguments = ["run", "federation.yaml", "--quiet", *(word for one in settings for word in ("--set", one))]
    assert execute(arguments) == 0
    (bundle,) = federation.folder.glob("runs/*/bundle")
    assert verify(bundle).problems == ()
    told = json.loads((bundle.parent / "distill/result.json").read_text())["measures"]
    assert 0 < told["federated.pool_answered"] <= 1


def test_a_run_with_clients_in_one_process_becomes_a_bundle_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_arguments: Callable[..., list[str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    driver = "{name: federated, clients: 3, rounds: 2, division: class, training: {local_epochs: 1, taught_epochs: 1}}"
    assert execute(["run", *tiny_arguments(distill__driver=driver), "--quiet"]) == 0
    (bundle,) = tmp_path.glob("runs/*/bundle")
    assert verify(bundle).problems == ()
    told = json.loads((bundle.parent / "distill/result.json").read_text())["measures"]
    assert told["federated.bytes_from_a_client_a_round"] > 0
    assert not list((bundle.parent / "distill").glob(".federated.pt")), "the stage is done, and its state goes"
