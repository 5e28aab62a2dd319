"""Acquisition functions of active distillation: the area under the learning curve, over that of random choices.

    python benchmarks/active.py --data DATA --out OUT [--tasks mnist_1k cifar_5k] [--acquisitions pcoreset margin]
        [--oracle dataset] [--seeds 5] [--rounds 4] [--budget 20] [--images 1000] [--epochs 20]

Each curve is the accuracy on test of a student before the first round and after each, by driver `active` with method
dho. Within a seed all functions begin with the same student, labels and images. With --oracle dataset a round buys
labels, and the student learns the whole pool from the teacher; with --oracle teacher a round buys the teacher's
answers, and the student learns nothing else but the labels of the start; the share of right ones among them is told.

The teacher is a stand-in for a model that knows the classes by name alone: distances in the task's teacher's embedding
to the means of the labels of the start. Validation and reference split keep their labels, which no budget counts.

Differences are paired by seed, in points of accuracy, with Student's 95 % interval. Curves are kept in OUT as they end
and not repeated, so a stopped benchmark goes on, and parts of it may be run one by one. --write FILE writes the rows.
"""

import argparse
import copy
import csv
import dataclasses
import io
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lib.bench import Bench, load_task, paired_difference, shown_command, spread, verdict
from torch import Tensor, nn

from edgestill.distill.acquisition import ACQUISITIONS
from edgestill.distill.config import DistillConfig
from edgestill.distill.distilled import Distilled
from edgestill.distill.drivers import Lesson
from edgestill.distill.drivers.active import Active, ActiveConfig, area_under_curve
from edgestill.distill.drivers.base import in_memory
from edgestill.distill.train import distill
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.runs.checkpoint import write_atomic
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.training.metrics import evaluate

_CPU = torch.device("cpu")
_BASE = "random"
_SHARPNESS = 10.0  # of the stand-in's cosines
_COLUMNS = (
    "task",
    "oracle",
    "acquisition",
    "area",
    "deviation",
    "difference",
    "low",
    "high",
    "last",
    "right",
    "classes",
    "n",
)

Row = dict[str, Any]  # {task, oracle, acquisition, seed, settings, asked, accuracy, right, teacher, classes, seconds}


class Prototypes(nn.Module):
    """Cosine of an image's embedding to the mean of each class's labelled ones."""

    def __init__(self, network: nn.Module, labelled: ImageSplit, classes: int) -> None:
        super().__init__()
        self.network = network
        with evaluating(network), torch.no_grad():
            found = F.normalize(look(network, labelled.batch(torch.arange(len(labelled))).inputs).embedding)
        means = [found[labelled.targets == label].mean(0) for label in range(classes)]
        self.register_buffer("means", F.normalize(torch.stack(means)))

    def look(self, inputs: Tensor) -> View:
        view = look(self.network, inputs)
        return view._replace(logits=_SHARPNESS * F.normalize(view.embedding) @ self.get_buffer("means").T)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.look(inputs).logits


def main() -> None:
    given = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    given.out.mkdir(parents=True, exist_ok=True)
    rows = [
        row
        for task in given.tasks
        for seed in range(given.first_seed, given.first_seed + given.seeds)
        for row in _of_seed(task, seed, given)
    ]
    print(_report(rows, given))
    if given.write is not None:
        write_atomic(given.write, _csv(rows, given).encode())


def _of_seed(task: str, seed: int, given: argparse.Namespace) -> list[Row]:
    """Rows of one seed; curves that the journal has not are made."""
    journal = given.out / f"active_{task}.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    kept = {(row["settings"], row["acquisition"]): row for row in map(json.loads, lines) if row["seed"] == seed}
    settings = digest(given.oracle, given.rounds, given.budget, given.start, given.images, given.epochs)[:16]
    bench: Bench | None = None
    for name in dict.fromkeys((_BASE, *given.acquisitions)):
        if (settings, name) in kept:
            continue
        bench = bench or _small(load_task(task)(seed, given.data, given.out), given.images)
        row = {"task": task, "oracle": given.oracle, "acquisition": name, "seed": seed, "settings": settings}
        kept[settings, name] = row | _curve(bench, name, seed, given)
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(kept[settings, name]) + "\n")
        shown = " ".join(f"{100 * value:.1f}" for value in kept[settings, name]["accuracy"])
        print(f"{task}, seed {seed}, {name}: {shown}", file=sys.stderr, flush=True)
    return [kept[settings, name] for name in dict.fromkeys((_BASE, *given.acquisitions))]


def _small(bench: Bench, images: int) -> Bench:
    train = bench.splits.train.select(torch.arange(min(images, len(bench.splits.train))))
    return dataclasses.replace(bench, splits=dataclasses.replace(bench.splits, train=train))


def _curve(bench: Bench, acquisition: str, seed: int, given: argparse.Namespace) -> Row:
    """Accuracy on test after each round, and the share of the teacher's right answers among those asked for."""
    config = ActiveConfig(
        oracle=given.oracle, start=given.start, rounds=given.rounds, budget=given.budget, acquisition=acquisition
    )
    logs, start = in_memory(), time.process_time()
    active = Active(config, logs, seed)
    begun = Active(ActiveConfig(oracle="dataset", start=given.start), seed=seed).at_start(bench.splits)
    teacher = Prototypes(copy.deepcopy(bench.teacher), begun.train.labelled(), bench.splits.task.num_classes)
    test, accuracy = next(iter(bench.tests.values())), list[float]()
    told = {**bench.training.model_dump(), "epochs": given.epochs, "patience": 0}
    recipe = DistillConfig.model_validate({"methods": ["dho"], "training": told})

    def learn(lesson: Lesson) -> Distilled:
        assert lesson.splits is not None
        student = bench.make_student(seed + 1000 * (lesson.draw or 0))
        by = teacher if lesson.teacher is None else lesson.teacher
        found = distill(student, by, lesson.splits, recipe, seed=seed, device=_CPU)
        accuracy.append(evaluate(found.student, test, _CPU).accuracy)
        return found

    active.run(learn, teacher, bench.splits)
    chosen = [int(name) for entry in logs("rounds").entries for name in entry["chosen"]]
    return {
        "asked": [given.budget * number for number in range(len(accuracy))],
        "accuracy": accuracy,
        "right": _right(teacher, bench.splits.train, chosen),
        "teacher": evaluate(teacher, test, _CPU).accuracy,
        "classes": len(set(bench.splits.train.targets[chosen[: given.budget]].tolist())),
        "seconds": time.process_time() - start,
    }


def _right(teacher: nn.Module, train: ImageSplit, chosen: list[int]) -> float:
    batch = train.batch(torch.tensor(chosen))
    with evaluating(teacher), torch.no_grad():
        return float((teacher(batch.inputs).argmax(1) == batch.targets).double().mean())


def _told(rows: list[Row], task: str, name: str) -> dict[str, Any]:
    """Figures of an acquisition function on a task, in points."""

    def of(name: str) -> list[Row]:
        return [row for row in rows if row["task"] == task and row["acquisition"] == name]

    areas, base = ([100 * area_under_curve(r["asked"], r["accuracy"]) for r in of(one)] for one in (name, _BASE))
    mean, half = paired_difference(areas, base)
    return {
        "task": task, "oracle": rows[0]["oracle"], "acquisition": name, "area": statistics.fmean(areas),
        "deviation": spread(areas), "difference": mean, "low": mean - half, "high": mean + half,
        "last": 100 * statistics.fmean(row["accuracy"][-1] for row in of(name)),
        "right": 100 * statistics.fmean(row["right"] for row in of(name)),
        "classes": statistics.fmean(row["classes"] for row in of(name)), "n": len(areas),
    }  # fmt: skip


def _all_told(rows: list[Row], given: argparse.Namespace) -> list[dict[str, Any]]:
    return [_told(rows, task, name) for task in given.tasks for name in dict.fromkeys((_BASE, *given.acquisitions))]


def _report(rows: list[Row], given: argparse.Namespace) -> str:
    machine = describe_machine()
    lines = [
        f"    {shown_command()}",
        "",
        f"{machine['cpu']}, 1 thread, torch {torch.__version__}; n = {given.seeds} seeds; oracle {given.oracle}; "
        f"{given.start} label(s) a class, then {given.rounds} rounds of {given.budget} of {given.images} images; "
        f"{given.epochs} epochs each.",
    ]
    for task in given.tasks:
        stand_in = [100 * row["teacher"] for row in rows if row["task"] == task and row["acquisition"] == _BASE]
        lines += [f"{task}: the stand-in teacher has {statistics.fmean(stand_in):.1f} % on test.", ""]
    lines += [
        "| task | acquisition | area, % | against random | | last round, % | teacher right on the chosen, % | "
        "classes in round 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in _all_told(rows, given):
        against = f"{one['difference']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
        cells = ("–", "–") if one["acquisition"] == _BASE else (against, verdict(one["low"], one["high"]))
        lines.append(
            f"| {one['task']} | `{one['acquisition']}` | {one['area']:.2f} ± {one['deviation']:.2f} | {cells[0]} | "
            f"{cells[1]} | {one['last']:.2f} | {one['right']:.1f} | {one['classes']:.1f} |"
        )
    return "\n".join(lines)


def _csv(rows: list[Row], given: argparse.Namespace) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in _all_told(rows, given):
        writer.writerow({key: f"{v:.3f}" if isinstance(v, float) else v for key, v in one.items()})
    return out.getvalue()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=("mnist_1k", "cifar_5k"), default=["mnist_1k", "cifar_5k"])
    parser.add_argument("--acquisitions", nargs="+", choices=ACQUISITIONS, default=list(ACQUISITIONS))
    parser.add_argument("--oracle", choices=("dataset", "teacher"), default="dataset")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--start", type=int, default=1, help="labels of each class at the start")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--budget", type=int, default=20, help="examples asked about in a round")
    parser.add_argument("--images", type=int, default=1000, help="training images, labels of the start among them")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--write", type=Path, help="csv file to write the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
