"""Checks of what a run stands on beside its libraries: cores, drivers, ports, databases, the clock, pinned versions."""

import datetime
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import edgestill
from edgestill.flows.plan.finding import Check

_PORT = 4200  # of `edgestill ui`
_SKEW_S = 60
_OLDEST = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)  # no clock that is right shows less
_GROUPS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
_MOST_DATABASES = 20


def pinned() -> Iterator[Check]:
    """Compare installed versions with constraints.txt, the set that is tested; only a checkout has it."""
    path = Path(edgestill.__file__).resolve().parents[1] / "constraints.txt"
    if not path.is_file():
        return
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    found = {name: version for name in pins if (version := _version(name)) is not None}
    other = [
        f"{name} {found[name]} (tested: {pins[name]})"
        for name in found
        if found[name].split("+")[0] != pins[name].split("+")[0]
    ]
    if other:
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        yield Check(
            "versions", f"{', '.join(other[:5])}{more}", f"pip install -c {path} 'edgestill' for the tested set"
        )
    else:
        yield Check("versions", f"all {len(found)} are those of constraints.txt")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cores() -> Iterator[Check]:
    """Compare torch's threads with the cores that this process may use, a container's limit included."""
    import torch

    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    limit = core_limit()
    usable = min(allowed, limit or allowed)
    told = f"{there} in the machine, {allowed} for this process" + (f", a limit of {limit:g}" if limit else "")
    threads = torch.get_num_threads()
    fix = f"set device.threads={max(1, int(usable))}: {threads} threads on {usable:g} cores wait for each other"
    yield Check("cores", f"{told}; {threads} torch threads", fix if threads > max(1, usable) else "")


def core_limit(files: tuple[Path, Path] = _GROUPS) -> float | None:
    """Number of cores that the control group grants; None without a limit."""
    second, first = files
    try:
        quota, period = second.read_text(encoding="utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota = first.read_text(encoding="utf-8")
        period = first.with_name("cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None


def drivers() -> Iterator[Check]:
    """Tell CUDA of ONNX Runtime and TensorRT, where there is a GPU to use them on."""
    import torch

    from edgestill.export.formats import FORMATS

    if not torch.cuda.is_available():
        yield Check("cuda", "no GPU that torch sees, so neither CUDA nor TensorRT is used")
        return
    for name, form in (("cuda", "cuda_fp32"), ("tensorrt", "tensorrt_fp16")):
        why = FORMATS[form].missing()
        yield Check(
            name, f"{form} can be made here" if not why else f"no {form}: {why}", "docs/howto/targets.md" if why else ""
        )


def port() -> Iterator[Check]:
    """Tell if the port of `edgestill ui` is free, Prefect's, or another program's."""
    import socket

    with socket.socket() as probe:
        probe.settimeout(1)
        is_taken = probe.connect_ex(("127.0.0.1", _PORT)) == 0
    if not is_taken:
        yield Check("port", f"{_PORT} is free for `edgestill ui`")
    elif _answers(f"http://127.0.0.1:{_PORT}/api"):
        yield Check("port", f"a Prefect server answers on {_PORT}")
    else:
        yield Check("port", f"another program listens on {_PORT}", "start `edgestill ui --port` on another one")


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=3).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def databases(runs: Path) -> Iterator[Check]:
    """Try to write to Prefect's database and to the newest runs' studies, and tell those that are locked or damaged."""
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    files = [home / "prefect.db", *sorted(runs.glob("*/tune/study.db"), reverse=True)[:_MOST_DATABASES]]
    found = [path for path in files if path.is_file()]
    problems = [(path, why) for path in found if (why := _unusable(path))]
    for path, why in problems:
        yield Check("database", f"{path}: {why}", "end the process that holds it, or move the file away")
    if not problems:
        yield Check("database", f"{len(found)} can be written" if found else "none yet")


def _unusable(path: Path) -> str:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=1, isolation_level=None)
    except sqlite3.Error as error:
        return str(error)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error)
    finally:
        connection.close()
    return ""


def clock(runs: Path) -> Iterator[Check]:
    """Compare the clock with the year, the file system's of the runs and the Prefect server's."""
    from edgestill.flows.prefect.clock import local_timezone

    now = datetime.datetime.now(datetime.UTC)
    if now < _OLDEST:
        yield Check("clock", f"it shows {now:%Y-%m-%d %H:%M} UTC", "set it: schedules and logs go by it", is_fault=True)
        return
    skews = [(name, skew) for name, skew in (_of_files(runs), _of_server()) if abs(skew) > _SKEW_S]
    for name, skew in skews:
        yield Check("clock", f"{name} is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}", "set both by NTP")
    if not skews:
        yield Check("clock", f"{now:%Y-%m-%d %H:%M} UTC, time zone {local_timezone()}")


def _of_files(runs: Path) -> tuple[str, float]:
    there = next(parent for parent in (runs.absolute(), *runs.absolute().parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            return f"the file system of {there}", Path(file.name).stat().st_mtime - time.time()
    except OSError:
        return "", 0.0


def _of_server() -> tuple[str, float]:
    from email.utils import parsedate_to_datetime

    import httpx

    url = os.environ.get("PREFECT_API_URL")
    try:
        said = httpx.get(f"{url}/health", timeout=3).headers["date"] if url else None
        return "the Prefect server", 0.0 if said is None else parsedate_to_datetime(said).timestamp() - time.time()
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError):
        return "", 0.0
