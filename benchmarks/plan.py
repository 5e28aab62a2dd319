"""How far is `edgestill plan` from the run? Plans, runs, and prints both for each stage with the factor between them.

    python benchmarks/plan.py [CONFIG.yaml] [--preset digits] [--set KEY=VALUE ...] [--out FOLDER]

A stage counts that took or was to take 3 s or more; a training that stopped early is compared by the epochs that it
had. Exit code 1: a stage that counts is wrong by more than 1.5 times. Without arguments tiny settings of the digits
are planned and run, in a minute.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from edgestill.distill.result import DistillResult
from edgestill.export.device.facts import load_average
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.plan.plan import Plan, make_plan
from edgestill.flows.progress import PlainLines
from edgestill.flows.runner import compress
from edgestill.flows.terminal import table
from edgestill.pipeline.figures import duration
from edgestill.pipeline.runs.rundir import RunDir

_COUNTS_FROM, _ALLOWED = 3.0, 1.5
_TINY = (
    "teacher.architecture=resnet20", "teacher.training.epochs=20", "search.evaluations=30", "tune.trials=4",
    "tune.epochs=6", "distill.training={epochs: 30, patience: 0}", "search.shortlist=3", "search.tournament.epochs=2",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path)
    parser.add_argument("--preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder for the run; without it the run is removed")
    given = parser.parse_args()
    is_default = given.config is None and given.preset is None
    preset, settings = ("digits", [*_TINY, *given.set]) if is_default else (given.preset, given.set)
    config = load_config(given.config, preset, settings)
    print(f"load at the start: {load_average()}")
    plan = make_plan(config, PlainLines(quiet=True))
    with tempfile.TemporaryDirectory() as folder:
        outcome = compress(config, out=given.out or folder, progress=PlainLines(quiet=True))
        run = RunDir.view(outcome.run)
        print(f"load at the end: {load_average()}")
        return _compared(plan, run, config)


def _compared(plan: Plan, run: RunDir, config: RunConfig) -> int:
    actual = {name: record.seconds for name, record in run.manifest.stages.items()}
    planned = {stage.stage: stage.estimate.seconds or 0.0 for stage in plan.stages}
    epochs = len(run.read("distill", DistillResult).curve)
    planned["distill"] *= epochs / config.distill.training.epochs
    rows, wrong = [], 0
    for name in planned:
        counts = max(planned[name], actual[name]) >= _COUNTS_FROM
        factor = planned[name] / actual[name]
        is_wrong = counts and not 1 / _ALLOWED <= factor <= _ALLOWED
        wrong += is_wrong
        told = "wrong" if is_wrong else "" if counts else "too short to count"
        rows.append((name, duration(planned[name]), duration(actual[name]), f"{factor:.2f}", told))
    total = sum(planned.values()), sum(actual.values())
    rows.append(("all", duration(total[0]), duration(total[1]), f"{total[0] / total[1]:.2f}", ""))
    print("\n".join(table(["stage", "planned", "took", "factor", ""], rows)))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
