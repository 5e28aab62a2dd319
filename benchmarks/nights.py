"""A year of nights by a fake clock, on a tiny run: nothing leaks, the disk stays bounded, every night is accounted for.

    python benchmarks/nights.py --nights 365 --out nights.csv

A night is that of `edgestill serve --cron`, without its server: the lock, the choice between an unfinished run, an
unchanged one and a new one, the run with its warm start, the comparison with the promoted student, drift, retention.
New data come every few nights, and some nights are ended in their middle, as a kill would. The table has a row for each
night: memory, open files, threads and children of the process, and the bytes on disk. Exit code 1: a bound is broken.
"""

import argparse
import contextlib
import csv
import datetime
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.prefect import nightly, tonight
from edgestill.flows.prefect.names import RETENTION
from edgestill.flows.progress import Silent
from edgestill.flows.registry.book import read_book
from edgestill.flows.registry.retention import Retention
from edgestill.flows.runner import new_run, run_chain, run_part
from edgestill.pipeline.runs import rundir
from edgestill.pipeline.runs.rundir import RunDir

SETTINGS = (
    "name=night", "device.threads=1", "teacher.architecture=resnet8", "teacher.training.epochs=1",
    "teacher.training.batch_size=32", "search.space.widths=[[4],[4,6],[6,8]]", "search.space.blocks=[[1,2],[1,2],[1]]",
    "search.scorer=params", "search.baselines=[]", "search.shortlist=2", "search.workers=1", "search.draws=1",
    "search.evaluations=4", "search.tournament.epochs=1", "search.budget.max_params=20000", "tune.trials=2",
    "tune.epochs=1", "distill.methods=[{name: kd}]", "distill.training.epochs=1", "distill.training.batch_size=32",
    "export.formats=[fp32]", "profile.timing.duration_s=0.02", "profile.timing.min_samples=30",
    "baselines.enabled=false",
)  # fmt: skip
KEPT, WARM_UP = 5, 10  # runs that retention leaves; nights before the bounds count
MOST_MB_A_NIGHT, MOST_FILES, MOST_THREADS = 0.2, 3, 3


class Night(NamedTuple):
    """What a night did, and what the process and the disk held after it."""

    night: int
    did: str
    promoted: int
    memory_mb: float
    files: int
    threads: int
    children: int
    disk_mb: float


class EndedError(BaseException):
    """End of a night in its middle."""


class Ending(Silent):
    """Progress that ends the night at the n-th tick."""

    def __init__(self, at: int) -> None:
        self.left = at

    def tick(self, done: int, total: int, note: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise EndedError


class Clock:
    """The module `datetime`, at a time of ours."""

    UTC, timedelta = datetime.UTC, datetime.timedelta

    def __init__(self) -> None:
        self.now = datetime.datetime(2026, 1, 1, 2, tzinfo=datetime.UTC)
        clock = self

        class Faked(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
                return clock.now

        self.datetime = Faked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--new-data-every", type=int, default=7, metavar="NIGHTS")
    parser.add_argument("--ended-every", type=int, default=11, metavar="NIGHTS")
    parser.add_argument("--out", type=Path, help="CSV file of the nights")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, faked(Path(folder)) as clock:
        nights = list(year(Path(folder), arguments, clock))
    if arguments.out:
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([Night._fields, *nights])
    broken = list(problems(nights))
    print("\n".join(broken) or f"{len(nights)} nights: nothing leaked, and every night is accounted for")
    return int(bool(broken))


@contextlib.contextmanager
def faked(folder: Path) -> Iterator[Clock]:
    """Nights without a server, at a time of ours, with a cache of their own."""
    clock: Any = Clock()
    os.environ |= {"EDGESTILL_CACHE": str(folder / "cache"), RETENTION: Retention(count=KEPT).model_dump_json()}
    rundir.datetime = nightly.datetime = clock  # type: ignore[attr-defined]
    nightly.get_run_logger = tonight.get_run_logger = logging.getLogger  # type: ignore[attr-defined,assignment]
    nightly.server_answers = lambda: False  # type: ignore[attr-defined]
    yield clock


def year(folder: Path, arguments: argparse.Namespace, clock: Clock) -> Iterator[Night]:
    data, runs = folder / "x.npz", folder / "runs"
    for night in range(arguments.nights):
        if night % arguments.new_data_every == 0:
            new_data(data, night)
        config = tonight.of_tonight(load_config(settings=[*SETTINGS, f"data={{name: npz, path: {data}}}"]))
        promoted = len(read_book(runs).promoted)
        did = one(config, runs, is_ended=night % arguments.ended_every == arguments.ended_every - 1)
        clock.now += datetime.timedelta(days=1)
        gc.collect()
        process = psutil.Process()
        found = Night(
            night, did, len(read_book(runs).promoted) - promoted, round(process.memory_info().rss / 1e6, 1),
            process.num_fds(), process.num_threads(), len(process.children(recursive=True)),
            round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 2),
        )  # fmt: skip
        print(*found, flush=True)
        yield found


def one(config: RunConfig, runs: Path, is_ended: bool) -> str:
    """Do a night, and tell which of its kinds it was."""
    did = list[str]()

    def go_on(root: Path) -> Any:
        did.append("went on" if not tonight.is_finished(root, config) else "nothing changed")
        with RunDir.open(root) as run:
            return run_chain(run)

    def anew(earlier: RunDir | None) -> Any:
        did.append("new" if earlier is None else "warm")
        with new_run(config, runs) as run:
            return run_part(run, None, Ending(5) if is_ended else Silent(), earlier=earlier)

    runs.mkdir(exist_ok=True)
    try:
        nightly.at_night(runs, lambda: tonight.tonight(config, runs, go_on, anew))
    except EndedError:
        did.append("ended")
    return ", ".join(did)


def new_data(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.arange(132) % 3
    images = rng.integers(0, 120, (132, 8, 8), dtype=np.uint8)
    images[np.arange(132), 2 * targets] += 120
    np.savez(path, x_train=images[:96], y_train=targets[:96], x_test=images[96:], y_test=targets[96:])


def problems(nights: list[Night]) -> Iterator[str]:
    """Yield a sentence on every bound that is broken."""
    for night in nights:
        if night.promoted > 1:
            yield f"night {night.night} promoted {night.promoted} students"
        if not night.did:
            yield f"night {night.night} did nothing that it told of"
    late = nights[WARM_UP:]
    if len(late) < WARM_UP:
        return
    first, last = late[0], late[-1]
    slope = float(np.polyfit([n.night for n in late], [n.memory_mb for n in late], 1)[0])
    print(f"memory: {slope:+.3f} MB a night; disk: {max(n.disk_mb for n in late):.1f} MB at most")
    if slope > MOST_MB_A_NIGHT:
        yield f"memory grows by {slope:.2f} MB a night"
    if last.files > first.files + MOST_FILES:
        yield f"open files grow from {first.files} to {last.files}"
    if last.threads > first.threads + MOST_THREADS:
        yield f"threads grow from {first.threads} to {last.threads}"
    if last.children > first.children:
        yield f"processes are left: {last.children}"
    half = len(late) // 2
    before, after = (max(n.disk_mb for n in part) for part in (late[:half], late[half:]))
    if after > 1.5 * before:
        yield f"the disk grows from {before} to {after} MB"


if __name__ == "__main__":
    sys.exit(main())
