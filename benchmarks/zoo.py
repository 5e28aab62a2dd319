"""Every distillation method beside plain KD tuned with equal effort, and beside no teacher, on several tasks.

    python benchmarks/zoo.py --data DATA --out OUT [--tasks mnist_1k sst2] [--methods taid pld] [--seeds 5] [--tune 6]

Each method, plain KD and no teacher among them, gets as many trials of Optuna over its own ranges on one seed that is
not reported, and the same epochs. Beside it stands its ablation: the tuned method with its own idea switched off, as
its `facts` say. Differences are paired by seed, in points of accuracy (balanced accuracy where the task has it), with
Student's 95 % interval. A method that a task does not fit is left out with its reason.

DATA is laid out as docs say: mnist.npz, cifar10/, weights/, text/sst2/, text/sms/. Trainings are kept in OUT and not
repeated, so a stopped benchmark goes on. --write FILE writes the rows as csv, in place of the same tasks' and methods'
(distill/zoo.csv is read by `edgestill explain`).
"""

import argparse
import csv
import io
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lib.bench import Make, load_task, paired_difference, shown_command, spread, verdict
from methods import rows_of_seed, tuned

from edgestill.distill.methods import METHODS
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.errors import UserError, first_line
from edgestill.pipeline.runs.checkpoint import write_atomic
from edgestill.pipeline.runs.provenance import describe_machine

TASKS = {  # name -> what it reads below DATA
    "mnist_1k": ".",
    "mnist_oddeven": ".",
    "mnist_1k_pool": ".",
    "cifar_5k": ".",
    "sst2": "text/sst2",
    "sms": "text/sms/sms.tsv",
}
_FIRST = ("kd", "none")  # what every other is compared with
_COLUMNS = (
    "task",
    "method",
    "accuracy",
    "deviation",
    "difference",
    "low",
    "high",
    "ablation",
    "ablation_half",
    "n",
    "trials",
)


def main() -> None:
    given = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    given.out.mkdir(parents=True, exist_ok=True)
    rows = [row for task in given.tasks for row in _of_task(task, given)]
    print(_report(rows, given))
    if given.write is not None:
        write_atomic(given.write, _csv([*_others(given.write, rows), *rows]).encode())


def _of_task(task: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of one task: the baselines, then each method with its ablation."""
    make, data = load_task(task), given.data / TASKS[task]
    told = SimpleNamespace(**vars(given) | {"task": task, "data": data, "epochs": None, "first_seed": 100})
    accuracies: dict[str, list[float]] = {}
    for name in dict.fromkeys((*_FIRST, *given.methods)):
        try:
            accuracies |= _trained(name, make, told)
        except UserError as reason:
            print(f"{task}: {name} is left out: {first_line(reason)}", file=sys.stderr)
            continue
        yield _row(task, name, accuracies, given.seeds) | {"trials": given.tune}


def _trained(name: str, make: Make, told: SimpleNamespace) -> dict[str, list[float]]:
    """Accuracies of the tuned method over the seeds, and of its ablation as `NAME without`."""
    bench = make(told.first_seed - 1, told.data, told.out)
    settings = tuned(bench, name, [{"name": name}], told)  # type: ignore[arg-type]
    recipes = {name: settings}
    facts = METHODS[name].facts
    if facts is not None and facts.ablation is not None and name not in _FIRST:
        recipes[f"{name} without"] = [
            one | dict(facts.ablation) if one.get("name") == name else one for one in settings
        ]
    seeds = range(told.first_seed, told.first_seed + told.seeds)
    rows = [row for seed in seeds for row in rows_of_seed(make, seed, recipes, bench.training, told)]  # type: ignore[arg-type]
    return {
        label: [100 * next(iter(row["accuracy"].values())) for row in rows if row["label"] == label]
        for label in recipes
    }


def _row(task: str, name: str, accuracies: dict[str, list[float]], n: int) -> dict[str, Any]:
    own = accuracies[name]
    mean, half = paired_difference(own, accuracies["kd"])
    row: dict[str, Any] = {
        "task": task, "method": name, "accuracy": statistics.fmean(own), "deviation": spread(own),
        "difference": mean, "low": mean - half, "high": mean + half, "ablation": "", "ablation_half": "", "n": n,
    }  # fmt: skip
    without = accuracies.get(f"{name} without")
    if without is not None:
        row["ablation"], row["ablation_half"] = paired_difference(own, without)
    return row


def _report(rows: list[dict[str, Any]], given: argparse.Namespace) -> str:
    machine = describe_machine()
    lines = [
        f"    {shown_command()}",
        "",
        f"{machine['cpu']}, 1 thread; n = {given.seeds} seeds; {given.tune} tuning trials each.",
        "",
        "| task | method | accuracy, % | against tuned KD | | against itself without its idea |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["method"] == "kd":
            against, said = "–", "–"
        else:
            against = f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
            said = verdict(row["low"], row["high"])
        own = f"{row['ablation']:+.2f} ± {row['ablation_half']:.2f}" if row["ablation"] != "" else "–"
        accuracy = f"{row['accuracy']:.2f} ± {row['deviation']:.2f}"
        lines.append(f"| {row['task']} | `{row['method']}` | {accuracy} | {against} | {said} | {own} |")
    return "\n".join(lines)


def _others(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the file that these do not replace."""
    if not path.exists():
        return []
    new = {(row["task"], row["method"]) for row in rows}
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if (row["task"], row["method"]) not in new]


def _csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if row["method"] != "kd":
            writer.writerow({key: f"{v:.3f}" if isinstance(v, float) else v for key, v in row.items()})
    return out.getvalue()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=[n for n, kind in METHODS.items() if kind.inputs is None]
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tune", type=int, default=6, help="trials for each method")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--write", type=Path, help="csv file to write the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
