"""The method that `distill.methods: auto` chooses, beside plain KD and beside the best single method by hindsight.

    python benchmarks/auto.py --data DATA --out OUT [--tasks mnist_1k sst2] [--seeds 5]

On each task and seed, the methods that suit it are halved as the stage `recipe` does, and the chosen one's own training
of full length is measured on test. The best method by hindsight has the highest mean over the seeds on test,
which no rule can know. Every method has its default settings. Differences are paired by seed, in points of accuracy
(balanced accuracy where the task has it), with Student's 95 % interval.

DATA is laid out as for zoo.py. Trainings are kept in OUT and not repeated, so a stopped benchmark goes on.
"""

import argparse
import copy
import json
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lib.bench import Bench, load_task, shown_command, shown_difference
from methods import rows_of_seed
from zoo import TASKS

from edgestill.distill.auto import AutoConfig, Trained, halve, label_noise, suiting
from edgestill.distill.config import DistillConfig
from edgestill.distill.methods import KD
from edgestill.distill.methods.facts import About
from edgestill.distill.train import distill
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.runs.checkpoint import write_atomic
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.teachers.teacher import PARTS
from edgestill.pipeline.training.calibration import softmax
from edgestill.pipeline.training.metrics import class_logits, packed, right_answers
from edgestill.pipeline.training.state import restarted

_CPU = torch.device("cpu")
_PLAIN = KD.name


def main() -> None:
    given = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    given.out.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    print(f"    {shown_command()}\n\n{machine['cpu']}, 1 thread, torch {torch.__version__}; n = {given.seeds} seeds\n")
    print("| task | chosen, by seed | accuracy, % | plain KD | against it | best by hindsight | against it |")
    print("|---|---|---|---|---|---|---|")
    for task in given.tasks:
        print(_row(task, given), flush=True)


def _row(task: str, given: argparse.Namespace) -> str:
    chosen, accuracies = list[str](), dict[str, list[float]]()
    for seed in range(100, 100 + given.seeds):
        bench = load_task(task)(seed, given.data / TASKS[task], given.out)
        methods = _methods(bench)
        chosen.append(_chosen(task, bench, methods, seed, given.out))
        for name, accuracy in _measured(task, bench, methods, seed, given).items():
            accuracies.setdefault(name, []).append(accuracy)
    whole = {name: values for name, values in accuracies.items() if len(values) == given.seeds}
    own = [accuracies[name][place] for place, name in enumerate(chosen)]
    plain, best = whole[_PLAIN], max(whole, key=lambda name: statistics.fmean(whole[name]))
    cells = (
        task,
        ", ".join(chosen),
        f"{statistics.fmean(own):.2f}",
        f"{statistics.fmean(plain):.2f}",
        shown_difference(own, plain),
        f"`{best}` {statistics.fmean(whole[best]):.2f}",
        shown_difference(own, whole[best]),
    )
    return f"| {' | '.join(cells)} |"


def _methods(bench: Bench) -> list[str]:
    answers = softmax(class_logits(bench.teacher, bench.splits.validation, _CPU))
    targets = bench.splits.validation.targets.numpy()
    task, train = bench.splits.task, bench.splits.train
    labelled = len(train.labelled())
    about = About(task.kind, task.num_classes, labelled, len(train) - labelled, label_noise(answers, targets))
    return suiting(about, PARTS)[0]


def _chosen(task: str, bench: Bench, methods: list[str], seed: int, out: Path) -> str:
    path = out / f"auto_{task}_{seed}.json"
    if not path.exists():
        states: dict[str, Any] = {}

        def train(method: str, rung: int, epochs: int) -> Trained:
            training = bench.training.model_copy(update={"epochs": epochs, "patience": 0})
            config = DistillConfig(training=training).with_method(method)
            done = distill(
                bench.make_student(seed),
                copy.deepcopy(bench.teacher),
                bench.splits,
                config,
                seed=derive_seed(seed, "recipe", rung),
                device=_CPU,
                save=lambda state: states.__setitem__(method, copy.deepcopy(state)),
                resume=restarted(states[method]) if rung else None,
            )
            right = packed(right_answers(done.student, bench.splits.validation, _CPU))
            return Trained(done.fitted.best.score, right, 0.0)

        examples = len(bench.splits.validation)
        found = halve(methods, AutoConfig(), train, longest=bench.training.epochs, validation_examples=examples)
        write_atomic(path, found.model_dump_json().encode())
    return str(json.loads(path.read_text(encoding="utf-8"))["chosen"])


def _measured(task: str, bench: Bench, methods: list[str], seed: int, given: argparse.Namespace) -> dict[str, float]:
    """Accuracy on test of each method's own training, in per cent."""
    told = SimpleNamespace(task=task, data=given.data / TASKS[task], out=given.out, epochs=None)
    configs = {name: [{"name": name}] for name in methods}
    rows = rows_of_seed(load_task(task), seed, configs, bench.training, told)  # type: ignore[arg-type]
    return {row["label"]: 100 * next(iter(row["accuracy"].values())) for row in rows}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
