"""Many flow runs by several workers on PostgreSQL: none lost, none stuck, none run twice.

    python benchmarks/flow_runs.py --runs 1000 --workers 4 [--limit 2] [--out flow_runs.csv]

A PostgreSQL server, a Prefect server on it and the workers of a process pool are started in a folder of their own, and
end with this script. A flow run is a process of its worker, which leaves a line in a file of its own and ends: the
orchestration alone, without a chain's hours. After the last one each flow run must be Completed and have exactly one
line. The table has a row for each flow run: when it was due, begun and ended, and by which process. Exit code 1: one
was lost, stuck or run twice.
"""

import argparse
import contextlib
import csv
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from prefect import flow
from prefect.runtime import flow_run

POOL, MARKS = "flow-runs", "FLOW_RUNS_MARKS"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
STARTS_S, PAGE = 180, 200


class Run(NamedTuple):
    """A flow run: seconds from the first one's due time."""

    id: str
    state: str
    due_s: float
    begun_s: float
    ended_s: float
    marks: int


@flow(name="mark", persist_result=False)
def mark() -> None:
    """Leave a line in the flow run's own file."""
    with (Path(os.environ[MARKS]) / str(flow_run.id)).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--limit", type=int, default=2, help="flow runs that a worker has at once")
    parser.add_argument("--patience", type=float, default=60, help="seconds a flow run, on average, until giving up")
    parser.add_argument("--out", type=Path, help="CSV file of the flow runs")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and workers end too
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "marks").mkdir()
        database = stack.enter_context(postgres())
        own = environment(folder, database)
        api = stack.enter_context(server(own, folder))
        own["PREFECT_API_URL"] = api
        deployment = deployed(own, api)
        begun = time.monotonic()
        for _ in range(arguments.runs):
            posted(f"{api}/deployments/{deployment}/create_flow_run", {})
        print(f"{arguments.runs} flow runs asked for in {time.monotonic() - begun:.0f} s", flush=True)
        for number in range(arguments.workers):
            stack.enter_context(worker(own, folder, number, arguments.limit))
        waited_for(api, arguments.runs, arguments.patience * arguments.runs)
        runs = ended(api, folder / "marks")
        strangers = len(list((folder / "marks").iterdir())) - sum(run.marks > 0 for run in runs)
    if arguments.out:
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([Run._fields, *runs])
    return told(runs, arguments.runs, strangers)


def told(runs: Sequence[Run], wanted: int, strangers: int) -> int:
    """Print what became of the flow runs; return 1 if one was lost, stuck or run twice."""
    states, marks = Counter(run.state for run in runs), Counter(run.marks for run in runs)
    waits = sorted(run.begun_s - run.due_s for run in runs) or [0.0]
    took = sorted(run.ended_s - run.begun_s for run in runs) or [0.0]
    last = max((run.ended_s for run in runs), default=0.0)
    first = min((run.begun_s for run in runs), default=0.0)
    print(f"{len(runs)} flow runs in {last - first:.0f} s: {60 * len(runs) / max(1e-9, last - first):.1f} a minute")
    print(f"seconds of a flow run, as the server has them: median {statistics.median(took):.2f}, most {took[-1]:.2f}")
    print(f"seconds from being asked for to its start: median {statistics.median(waits):.1f}, most {waits[-1]:.1f}")
    print(f"states: {dict(states)}; times that each was run: {dict(marks)}; unknown marks: {strangers}")
    is_right = len(runs) == wanted and set(states) == {"COMPLETED"} and set(marks) == {1} and not strangers
    print("none lost, none stuck, none run twice" if is_right else "NOT as it should be")
    return int(not is_right)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Start a server; yield the address of its database for Prefect."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "plugins"))
    from postgres import Server, binaries

    programs = binaries()
    if programs is None:
        raise SystemExit("no PostgreSQL is installed: apt-get install postgresql")
    found = Server(Path(tempfile.mkdtemp()), programs)
    try:
        yield found.address().replace("postgresql://", "postgresql+asyncpg://")
    finally:
        found.kill()


def environment(folder: Path, database: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parent), kept.get("PYTHONPATH", "")]),
        MARKS: str(folder / "marks"),
    }


@contextlib.contextmanager
def server(own: dict[str, str], folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    api = f"http://127.0.0.1:{port}/api"
    with process(["server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"], own, folder / "server.log"):
        until(lambda: is_healthy(api), STARTS_S, f"the Prefect server; {folder / 'server.log'} says why")
        yield api


@contextlib.contextmanager
def worker(own: dict[str, str], folder: Path, number: int, limit: int) -> Iterator[None]:
    arguments = ["worker", "start", "--pool", POOL, "--type", "process", "--limit", str(limit), "--name", f"w{number}"]
    with process(arguments, own, folder / f"worker{number}.log"):
        yield


@contextlib.contextmanager
def process(arguments: list[str], own: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        started = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments], env=own, stdout=file, stderr=file, cwd=log.parent
        )
        try:
            yield
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def deployed(own: dict[str, str], api: str) -> str:
    """Make the pool and the deployment of `mark`; return its id."""
    posted(f"{api}/work_pools/", {"name": POOL, "type": "process", "base_job_template": {}})
    found = posted(f"{api}/flows/", {"name": "mark"})
    given = {
        "name": "mark",
        "flow_id": found["id"],
        "work_pool_name": POOL,
        "entrypoint": "flow_runs.mark",  # by module: by its file, the folder would be copied for each flow run
    }
    return str(posted(f"{api}/deployments/", given)["id"])


def waited_for(api: str, count: int, patience_s: float) -> None:
    """Wait until no flow run is left, and say every half minute how many are."""
    begun = told_at = time.monotonic()
    while (left := count - counted(api, ENDED)) and time.monotonic() - begun < patience_s:
        if time.monotonic() - told_at > 30:
            told_at = time.monotonic()
            print(f"{left} left after {told_at - begun:.0f} s", flush=True)
        time.sleep(2)


def counted(api: str, states: Sequence[str]) -> int:
    return int(posted(f"{api}/flow_runs/count", {"flow_runs": {"state": {"type": {"any_": list(states)}}}}))


def ended(api: str, marks: Path) -> list[Run]:
    """Read every flow run from the server."""
    found: list[dict[str, Any]] = []
    while page := posted(f"{api}/flow_runs/filter", {"limit": PAGE, "offset": len(found), "sort": "ID_DESC"}):
        found += page
    first = min((moment(run["expected_start_time"]) for run in found), default=0.0)
    return [
        Run(
            id=run["id"],
            state=run["state"]["type"],
            due_s=moment(run["expected_start_time"]) - first,
            begun_s=moment(run["start_time"]) - first,
            ended_s=moment(run["end_time"]) - first,
            marks=lines(marks / run["id"]),
        )
        for run in found
    ]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def moment(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else float("nan")


def posted(url: str, body: dict[str, Any]) -> Any:
    for _ in range(5):
        answer = httpx.post(url, json=body, timeout=60)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:  # its database is busy
            break
        time.sleep(1)
    answer.raise_for_status()
    return answer.json()


def is_healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def until(asked: Callable[[], bool], seconds: float, what: str) -> None:
    begun = time.monotonic()
    while not asked():
        if time.monotonic() - begun > seconds:
            raise SystemExit(f"{seconds:.0f} s were too few for {what}")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
