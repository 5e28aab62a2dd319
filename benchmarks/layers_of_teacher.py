"""Students of the teacher's own layers that begin with its weights, beside the same students from random weights.

    python benchmarks/layers_of_teacher.py --data FOLDER --out FOLDER [--students l1h2f2] [--seeds 5]

The task is `benchmarks/tasks/sst2.py`: FOLDER holds train, dev and test as tsv. A seed fixes the teacher, the student's
random weights and the order of the texts; within a seed, both students train by plain KD for the same epochs with the
same settings, none of them tuned here. Differences are means over seeds with Student's 95 % interval. Every training
is kept in FOLDER/layers_of_teacher.jsonl as it ends, and is not repeated.
"""

import argparse
import copy
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from lib.bench import Bench, load_task, shown_command, shown_difference, spread

from edgestill.distill.config import DistillConfig
from edgestill.distill.train import distill
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.teachers import TeacherConfig
from edgestill.pipeline.training.metrics import evaluate
from edgestill.search.spaces import LayersOfTeacherConfig, LayersOfTeacherSpace

_CPU = torch.device("cpu")
_TEACHER = TeacherConfig(architecture="text_transformer_2x128")  # the task's
_STARTS = ("teacher", "random")

Row = dict[str, Any]  # {student, start, seed, epochs, rate, accuracy, first, teacher, params}


def main() -> None:
    given = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    given.out.mkdir(parents=True, exist_ok=True)
    rows = [row for seed in range(given.seeds) for row in _of_seed(seed, given)]
    print(_report(rows, given))


def _of_seed(seed: int, given: argparse.Namespace) -> list[Row]:
    """Rows of both starts of every student; trained where the journal has none."""
    journal = given.out / "layers_of_teacher.jsonl"
    known = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()] if journal.exists() else []
    bench: Bench | None = None
    rows = []
    for student in given.students:
        for start in _STARTS:
            about = {"student": student, "start": start, "seed": seed, "epochs": given.epochs, "rate": given.rate}
            row = next((one for one in known if about.items() <= one.items()), None)
            if row is None:
                bench = bench or load_task("sst2")(seed, given.data, given.out)
                row = about | _train(bench, student, start, seed, given)
                with journal.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            rows.append(row)
    return rows


def _train(bench: Bench, student: str, start: str, seed: int, given: argparse.Namespace) -> Row:
    space, task = LayersOfTeacherSpace(LayersOfTeacherConfig(teacher=_TEACHER)), bench.splits.task
    architecture, teacher = space.parse(student), copy.deepcopy(bench.teacher)
    with drawn_from(derive_seed(seed, "student")):
        network = space.build(architecture, task)
    if start == "teacher":
        space.begin_from_teacher(network, architecture, task, teacher)
    (test,) = bench.tests.values()
    first = evaluate(network, test, _CPU).accuracy
    training = bench.training.model_copy(update={"epochs": given.epochs, "learning_rate": given.rate})
    done = distill(network, teacher, bench.splits, DistillConfig(training=training), seed=seed, device=_CPU)
    return {
        "accuracy": evaluate(done.student, test, _CPU).accuracy,
        "first": first,
        "teacher": evaluate(teacher, test, _CPU).accuracy,
        "params": sum(p.numel() for p in network.parameters()),
    }


def _report(rows: list[Row], given: argparse.Namespace) -> str:
    machine = describe_machine()
    teachers = {row["seed"]: 100 * row["teacher"] for row in rows}
    lines = [
        f"    {shown_command()}",
        "",
        f"{machine['cpu']}, 1 thread, torch {torch.__version__}; n = {given.seeds} seeds; plain KD, {given.epochs} "
        f"epochs, learning rate {given.rate:g}, not tuned. Accuracy on test in per cent, mean and standard deviation; "
        f"the teacher's is {statistics.fmean(teachers.values()):.2f}. Differences in points, paired by seed, with "
        "Student's 95 % interval.",
        "",
        "| student | parameters | before training, from the teacher | from the teacher | from random | difference |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(student, rows) for student in given.students)])


def _line(student: str, rows: list[Row]) -> str:
    of = {start: [row for row in rows if (row["student"], row["start"]) == (student, start)] for start in _STARTS}
    found = {start: [100 * row["accuracy"] for row in of[start]] for start in _STARTS}
    shown = [f"{statistics.fmean(found[start]):.2f} ± {spread(found[start]):.2f}" for start in _STARTS]
    first = statistics.fmean(100 * row["first"] for row in of["teacher"])
    difference = shown_difference(found["teacher"], found["random"])
    return f"| `{student}` | {of['teacher'][0]['params']:,} | {first:.2f} | {shown[0]} | {shown[1]} | {difference} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, dev and test as tsv")
    parser.add_argument("--out", type=Path, required=True, help="folder for teachers and finished trainings")
    parser.add_argument("--students", nargs="+", default=["l1h2f2", "l2h2f2"], help="architectures of the space")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate", type=float, default=0.001, help="learning rate, of both starts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
