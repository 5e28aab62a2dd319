"""Kills at random moments of a tiny run, each followed by `edgestill resume`: where they fell, and what came of them.

    python benchmarks/kills.py --kills 200 --out kills.csv

The first run is left alone. Then runs of the same configuration are killed by SIGKILL, with all of their processes,
after a random time, and resumed, until they end; a new run begins as long as kills are left. Each ended run must have
the student's weights and the fp32 file of the first one, to the last byte, on one thread. The table counts the kills by
the stage that was at work. --set shortens the run. Exit code 1: a run ended otherwise, or a resume was refused.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

SETTINGS = [
    "device.threads=1", "teacher.architecture=resnet8", "teacher.training.epochs=4", "rank_check.students=4",
    "rank_check.epochs=1", "search.space.widths=[[6,8],[8,12],[12,16]]", "search.space.blocks=[[1,2],[1,2],[1]]",
    "search.budget.max_params=26000", "search.evaluations=12", "search.workers=1", "search.draws=1",
    "search.baselines=[params]", "search.shortlist=3", "search.tournament.epochs=1", "tune.trials=4", "tune.epochs=2",
    "distill.training.epochs=4", "prune.method=l1", "prune.epochs=2", "export.formats=[fp32,int8]",
    "profile.timing.duration_s=0.05", "profile.timing.min_samples=70", "baselines.enabled=false",
]  # fmt: skip
SAME = (
    "teacher/weights.safetensors",
    "distill/weights.safetensors",
    "prune/weights.safetensors",
    "export/student.onnx",
)


class Kill(NamedTuple):
    """A kill: the run's number, the seconds after the start of the process, and the stage that was at work."""

    run: int
    after_s: float
    stage: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="CSV file of the kills")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the run")
    arguments = parser.parse_args()
    SETTINGS.extend(arguments.set)
    with tempfile.TemporaryDirectory() as folder:
        below = Path(folder)
        begun = time.monotonic()
        finished(below / "first")
        seconds = time.monotonic() - begun
        expected = digests(roots(below / "first")[0])
        print(f"undisturbed: {seconds:.0f} s", flush=True)
        kills, wrong = disturbed(below, arguments.kills, random.Random(arguments.seed), seconds, expected)
    if arguments.out:
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([Kill._fields, *kills])
    print(table(kills))
    runs = len({kill.run for kill in kills})
    print("\n".join(wrong) or f"{len(kills)} kills, {runs} runs: each ended with the bytes of the undisturbed one")
    return int(bool(wrong))


def disturbed(
    below: Path, count: int, rng: random.Random, seconds: float, expected: dict[str, str]
) -> tuple[list[Kill], list[str]]:
    """Kill and resume until there were so many kills; return them, and a sentence on everything that went wrong."""
    kills, wrong, number = list[Kill](), list[str](), 0
    while len(kills) < count:
        out = below / f"run{number}"
        while len(kills) < count and (kill := killed(out, number, rng.uniform(0, seconds / 2))) is not None:
            kills.append(kill)
        try:
            finished(out)
            (root,) = roots(out)
            found = digests(root)
            wrong += [f"run {number}: {name} differs" for name in expected if found.get(name) != expected[name]]
        except (RuntimeError, ValueError) as error:
            wrong.append(f"run {number}: {error}")
        number += 1
    return kills, wrong


def killed(out: Path, number: int, after_s: float) -> Kill | None:
    """Go on with the run, kill it after some seconds, and return the kill; None if it ended before."""
    process = subprocess.Popen(
        arguments_of(out), env=environment(out), start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Kill(number, round(after_s, 2), at_work(out))
    if process.returncode:
        raise SystemExit(f"run {number} was refused: {said}")
    return None


def arguments_of(out: Path) -> list[str]:
    """Return the command that begins the run of a folder, or goes on with it."""
    found = roots(out)
    return command("resume", out, str(found[0])) if found else command("run", out)


def command(verb: str, out: Path, *more: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    given = more if verb == "resume" else ("--preset", "digits", *settings)
    return [sys.executable, "-P", "-m", "edgestill", verb, *given, "--out", str(out), "--quiet"]


def roots(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("*/manifest.json"))


def at_work(out: Path) -> str:
    """Name of the stage that follows the finished ones."""
    found = roots(out)
    if not found:
        return "(start)"
    from edgestill.flows.chain import stage_names
    from edgestill.flows.config.loading import config_of
    from edgestill.pipeline.runs.rundir import RunDir

    run = RunDir.view(found[0])
    done = json.loads((found[0] / "manifest.json").read_text(encoding="utf-8"))["stages"]
    return next((name for name in stage_names(config_of(run)) if name not in done), "(end)")


def finished(out: Path) -> None:
    """Go on with the run of a folder to its end."""
    done = subprocess.run(arguments_of(out), env=environment(out), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-500:]}")


def environment(out: Path) -> dict[str, str]:
    """Return that of a process of the run: all runs share a cache of their own."""
    return os.environ | {"EDGESTILL_CACHE": str(out.parent / "cache"), "OMP_NUM_THREADS": "1"}


def digests(root: Path) -> dict[str, str]:
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in SAME if (root / name).is_file()}


def table(kills: list[Kill]) -> str:
    counts = Counter(kill.stage for kill in kills)
    rows = [f"| {stage} | {count} |" for stage, count in counts.most_common()]
    return "\n".join(["| stage at work | kills |", "|---|---|", *rows])


if __name__ == "__main__":
    sys.exit(main())
