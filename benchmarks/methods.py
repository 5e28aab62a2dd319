"""What distillation methods gain over plain KD and over no distillation, paired by seed.

    python benchmarks/methods.py --task mnist_shift --methods none kd hard --seeds 5 --data FOLDER --out FOLDER

A seed fixes the data's draw, the teacher, the student's first weights and the order of the images; within a seed,
methods differ in the recipe alone and train for the same epochs. A method is a recipe, its parts joined by `+`, each a
name of the methods' table with its settings, as in `kd(temperature=8)` or `hard+lelp(directions=kmeans)`; `none` is
cross-entropy on the labels. With --tune N each of them, the plain ones included, gets N trials of Optuna over the
ranges that it declares, on the validation images of one seed that is not among those reported.

Differences are means over seeds with Student's 95 % interval; a method is said to win or lose only where the interval
leaves out 0. `--gap-to LABEL` adds the share of the gap from plain KD to another method that each closes. Every
training is kept in FOLDER/TASK.jsonl as it ends, and is not repeated.
"""

import argparse
import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lib.bench import (
    Bench,
    Make,
    load_task,
    paired_difference,
    parse_recipe,
    shown_command,
    shown_difference,
    spread,
    task_names,
)
from torch import nn

from edgestill.distill.config import DistillConfig, StudentTrainingConfig, TuneConfig
from edgestill.distill.train import distill
from edgestill.distill.tune import tune, with_hyperparameters
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.training.metrics import evaluate

_CPU = torch.device("cpu")

Row = dict[str, Any]  # {label, seed, settings, accuracy: {test: value}, validation, seconds, best_epoch}


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    make = load_task(arguments.task)
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    configs = {label: parse_recipe(label) for label in arguments.methods}
    bench = make(arguments.first_seed - bool(arguments.tune), arguments.data, arguments.out)
    if arguments.tune:
        configs = {label: tuned(bench, label, methods, arguments) for label, methods in configs.items()}
    rows = [row for seed in seeds for row in rows_of_seed(make, seed, configs, bench.training, arguments)]
    print(_report(rows, arguments, seeds))


def _config(bench: Bench, methods: Sequence[dict[str, Any]], training: Mapping[str, float]) -> DistillConfig:
    told = {**bench.training.model_dump(), **training}
    return DistillConfig.model_validate({"methods": list(methods), "training": told})


def tuned(bench: Bench, label: str, methods: list[dict[str, Any]], arguments: argparse.Namespace) -> list[Any]:
    """The method's configurations with the best of its trials put in, the training's as a last item `training`."""
    base, seed = _config(bench, methods, {}), arguments.first_seed - 1
    settings = tuning_key(arguments.task, methods, arguments.tune, seed, bench.training)
    path: Path = arguments.out / f"{arguments.task}_{settings}.json"
    if not path.exists():

        def train(config: DistillConfig, trial: int, observe: Any) -> float:
            student = bench.make_student(seed)
            teacher = copy.deepcopy(bench.teacher)
            done = distill(student, teacher, bench.splits, config, seed=0, device=_CPU, observe=observe)
            return done.fitted.best.accuracy

        epochs = base.training.epochs
        config = TuneConfig(trials=arguments.tune, epochs=epochs, min_epochs=max(1, epochs // 9))
        found = tune(config, base, train, path.with_suffix(".db"), seed=0)
        path.write_text(json.dumps(found.best), encoding="utf-8")
    best: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    print(f"{label}: {best}", file=sys.stderr)
    chosen = with_hyperparameters(base, best)
    return [*(method.model_dump() for method in chosen.methods), {"training": _own(best)}]


def tuning_key(task: str, methods: list[Any], trials: int, seed: int, training: StudentTrainingConfig) -> str:
    """Names tuned settings by all that they follow from; `seed` is that of data, teacher and student."""
    return digest(task, _whole(methods), trials, seed, training)[:16]


def _own(best: dict[str, float]) -> dict[str, float]:
    return {name.partition(".")[2]: value for name, value in best.items() if name.startswith("training.")}


def rows_of_seed(
    make: Make,
    seed: int,
    configs: dict[str, list[Any]],
    training: StudentTrainingConfig,
    arguments: argparse.Namespace,
) -> list[Row]:
    """Every method's row of one seed; trained where the journal has none."""
    journal = arguments.out / f"{arguments.task}.jsonl"
    known = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()] if journal.exists() else []
    kept = {(row["settings"], row["seed"]): row for row in known}
    bench: Bench | None = None
    rows = []
    for label, methods in configs.items():
        settings = digest(_whole(methods), training, arguments.epochs)[:16]
        if (settings, seed) not in kept:
            bench = bench or make(seed, arguments.data, arguments.out)
            row: Row = {"label": label, "seed": seed, "settings": settings} | _train(
                bench, methods, seed, arguments.epochs
            )
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            kept[settings, seed] = row
            shown = "  ".join(f"{name} {100 * value:.2f}" for name, value in row["accuracy"].items())
            print(f"seed {seed}  {label}: {shown}  ({row['seconds']:.0f} s)", file=sys.stderr)
        rows.append(kept[settings, seed] | {"label": label})
    return rows


def _whole(methods: list[Any]) -> list[Any]:
    """With the defaults, so that a default that changes is another training (and so is the task's own)."""
    given, own = [m for m in methods if "training" not in m], [m for m in methods if "training" in m]
    return [*DistillConfig.model_validate({"methods": given}).model_dump(mode="json")["methods"], *own]


def _train(bench: Bench, methods: list[Any], seed: int, epochs: int | None) -> Row:
    training: dict[str, float] = {"epochs": epochs} if epochs else {}
    for method in methods:
        training |= method.get("training", {})
    config = _config(bench, [method for method in methods if "training" not in method], training)
    student, teacher = bench.make_student(seed), copy.deepcopy(bench.teacher)
    start = time.process_time()
    done = distill(student, teacher, bench.splits, config, seed=seed, device=_CPU)
    seconds = time.process_time() - start
    return {
        "accuracy": {name: _score(done.student, split, bench) for name, split in bench.tests.items()},
        "validation": done.fitted.best.accuracy,
        "best_epoch": done.fitted.best_epoch,
        "epochs": len(done.fitted.curve),
        "seconds": seconds,
        "measures": done.measures,
    }


def _score(network: nn.Module, split: ImageSplit, bench: Bench) -> float:
    """Accuracy, or balanced accuracy if the task is chosen by that."""
    is_balanced = bench.training.metric == "balanced_accuracy"
    return evaluate(network, split, _CPU, balanced=is_balanced).score


def _report(rows: list[Row], arguments: argparse.Namespace, seeds: Sequence[int]) -> str:
    """Tables in Markdown, one a test set."""
    machine = describe_machine()
    by: dict[str, dict[int, Row]] = {}
    for row in rows:
        by.setdefault(row["label"], {})[row["seed"]] = row
    lines = [
        f"    {shown_command()}",
        "",
        f"{machine['cpu']}, 1 thread, torch {torch.__version__}; seeds {seeds[0]} to {seeds[-1]}, n = {len(seeds)}; "
        f"{max(row['epochs'] for row in rows)} epochs"
        + (f"; {arguments.tune} tuning trials each" if arguments.tune else "; settings as given, none tuned here")
        + ". Mean and standard deviation in per cent; differences in points with Student's 95 % interval, paired by "
        "seed. Time is processor time over plain KD's, median of seeds.",
    ]
    for test in rows[0]["accuracy"]:
        values = {label: [of[s]["accuracy"][test] * 100 for s in seeds] for label, of in by.items()}
        against = [label for label in dict.fromkeys(("kd", "none", *arguments.against)) if label in by]
        moved = arguments.gap_to and test != next(iter(rows[0]["accuracy"]))  # the first is as the training data
        gap = [f"gap to {arguments.gap_to} closed"] if moved else []
        lines += ["", f"### {test}", "", _row("method", "accuracy", *(f"against {b}" for b in against), *gap, "time")]
        lines.append(_row(*("---" for _ in range(3 + len(against) + len(gap)))))
        for label, taken in values.items():
            cells = [f"{statistics.fmean(taken):.2f} ± {spread(taken):.2f}"]
            cells += [_difference(taken, values[base]) if base != label else "–" for base in against]
            if gap:
                cells.append(_closed(taken, values["kd"], values[arguments.gap_to]))
            times = [of["seconds"] / by["kd"][s]["seconds"] for s, of in by[label].items()] if "kd" in by else []
            lines.append(_row(f"`{label}`", *cells, f"{statistics.median(times):.2f}" if times else "–"))
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _difference(one: Sequence[float], other: Sequence[float]) -> str:
    """Mean of the paired differences, its interval, and what may be said of it."""
    mean, half = paired_difference(one, other)
    if math.isnan(half):
        return shown_difference(one, other)
    verdict = "not separable" if abs(mean) <= half else "wins" if mean > 0 else "loses"
    lowest = min(a - b for a, b in zip(one, other, strict=True))
    return f"{shown_difference(one, other)}, {verdict}; lowest {lowest:+.2f}"


def _closed(one: Sequence[float], plain: Sequence[float], goal: Sequence[float]) -> str:
    shares = [(a - b) / (c - b) for a, b, c in zip(one, plain, goal, strict=True) if c != b]
    return f"{100 * statistics.fmean(shares):.0f} %" if shares else "–"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=task_names(), required=True)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--epochs", type=int, help="instead of the task's own")
    parser.add_argument("--tune", type=int, default=0, help="trials for each method")
    parser.add_argument("--against", nargs="*", default=[], help="more methods to compare with, from --methods")
    parser.add_argument("--gap-to", help="a method of --methods")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
