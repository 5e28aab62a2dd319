"""Which student for which teacher: does any score predict the teacher-specific part of the ranking?

    python benchmarks/teachers.py --out FOLDER [--images mnist.npz --pool 3] [--space nb201] [--students 24]

Every student is distilled from every teacher by plain KD on the same few of the teachers' images, with the same effort
and from the same weights, once a seed, and measured on images held out: its accuracy, how often it agrees with its
teacher, and minus the divergence KL(teacher || student). The teacher-specific part of a value is what is left of it
after the teacher's mean and the student's mean are taken off; each teacher's spread is set to 1 first, since spread
does not change a ranking (the plain differences are reported beside). The same is done to each score, with untrained
teachers (DisWOT's protocol) and with the trained ones; a score that knows no teacher has none. The correlation of one
seed with another says how much there is to predict: where it is about 0, no score can be judged; `ceiling` is what a
perfect predictor would reach with the mean of the seeds, and `of itself` how far a score agrees with itself on another
batch. p is of a permutation of the students, alone and allowing for all the scores that were tried.

FOLDER keeps the teachers' weights and a line for every distillation, so that a run that was stopped goes on.
"""

import argparse
import contextlib
import copy
import dataclasses
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lib.carve import carve
from lib.teachers_cast import SPACES, choose_students, train_teachers
from lib.teachers_tables import TARGETS, print_interactions, print_main_effects, print_reliability, print_seeds
from torch import Tensor, nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.train import distill
from edgestill.pipeline.data.splits import ImageSplit, Splits, draw_batch
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.frozen import derive_seed, digest
from edgestill.pipeline.networks.network import PooledClassifier
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.search.scorers import SCORERS
from edgestill.search.scoring.conditions import Conditions, Means
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import make_space

_CPU = torch.device("cpu")


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    start = time.perf_counter()
    sizes = {"train": arguments.teacher_train, "validation": arguments.validation, "measured": arguments.measured}
    full, measured = carve(arguments.images, **sizes, seed=arguments.seed, pool=arguments.pool)
    arguments.out.mkdir(parents=True, exist_ok=True)
    teachers = train_teachers(full, arguments.teacher_epochs, arguments.seed, arguments.out, _settings(arguments)[:12])
    splits = _first(full, arguments.train)
    space = make_space(SPACES[arguments.space])
    students = choose_students(space, splits, arguments.students, arguments.seed)
    rows = _distil_all(teachers, space, students, splits, measured, arguments)
    seeds, names = range(arguments.seeds), list(teachers)
    targets = {
        target: np.array([[[rows[t, space.format(s), k][target] for t in names] for s in students] for k in seeds])
        for target in TARGETS
    }
    scores = _score(teachers, space, students, splits, arguments)
    _print_setting(teachers, space, splits, measured, rows, arguments)
    print_reliability(targets, arguments.seed)
    print_interactions(scores, targets, arguments.seed)
    for target, values in targets.items():
        print_seeds(scores, values, target)
    print_main_effects(scores, targets, arguments.seed)
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes, less what was read back from {arguments.out.name}/")


def _first(splits: Splits, train: int) -> Splits:
    """With so many of the training images."""
    fewer = ImageSplit(splits.train.images[:train], splits.train.targets[:train])
    return dataclasses.replace(splits, train=fewer, reference=fewer, sizes=splits.sizes | {"train": len(fewer)})


def _distil_all(
    teachers: dict[str, PooledClassifier],
    space: SearchSpace,
    students: Sequence[Architecture],
    splits: Splits,
    measured: ImageSplit,
    arguments: argparse.Namespace,
) -> dict[tuple[str, str, int], dict[str, Any]]:
    """(teacher, student, seed) to its measurements; those that FOLDER has are not made again."""
    journal, settings = arguments.out / "rows.jsonl", _settings(arguments)
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    known = [row for row in map(json.loads, lines) if row["settings"] == settings]
    rows = {(row["teacher"], row["student"], row["seed"]): row for row in known}
    wanted = list(itertools.product(range(arguments.seeds), students, teachers))
    for done, (seed, architecture, name) in enumerate(wanted, start=1):
        key = (name, space.format(architecture), seed)
        if key in rows:
            continue
        start = time.perf_counter()
        found = _distil(teachers[name], space, architecture, splits, measured, arguments, seed)
        taken = {"seconds": round(time.perf_counter() - start, 2), "settings": settings}
        rows[key] = dict(zip(("teacher", "student", "seed"), key, strict=True)) | found | taken
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[key]) + "\n")
        print(f"\r{done} of {len(wanted)} distillations", end="", flush=True)
    return {key: rows[key] for key in ((name, space.format(a), seed) for seed, a, name in wanted)}


def _distil(
    teacher: PooledClassifier,
    space: SearchSpace,
    architecture: Architecture,
    splits: Splits,
    measured: ImageSplit,
    arguments: argparse.Namespace,
    seed: int,
) -> dict[str, float]:
    """Weights and order of images are the same for every teacher, so that their luck is no part of the difference."""
    training = {"epochs": arguments.epochs, "batch_size": 32, "learning_rate": 0.05, "patience": 0}
    config = DistillConfig.model_validate({"methods": ["kd"], "training": training})
    own = derive_seed(arguments.seed, "student", architecture.key, seed)
    with drawn_from(own):
        student: nn.Module = space.build(architecture, splits.task)
    student = distill(student, teacher, splits, config, seed=own, device=_CPU).student
    (ours, theirs) = (_logits(network, measured) for network in (student, teacher))
    divergence = F.kl_div(ours.log_softmax(1), theirs.log_softmax(1), reduction="batchmean", log_target=True)
    return {
        "accuracy": float((ours.argmax(1) == measured.targets).double().mean()),
        "agreement": float((ours.argmax(1) == theirs.argmax(1)).double().mean()),
        "closeness": -float(divergence),
    }


def _logits(network: nn.Module, split: ImageSplit) -> Tensor:
    with torch.inference_mode():
        return torch.cat([network.eval()(batch.inputs) for batch in split.batches(512)])


def _score(
    teachers: dict[str, PooledClassifier],
    space: SearchSpace,
    students: Sequence[Architecture],
    splits: Splits,
    arguments: argparse.Namespace,
) -> dict[tuple[str, str], np.ndarray]:
    """(scorer, teacher's weights) to [score seeds, S, T]; scorers without a teacher have T = 1. NaN: no score."""
    costs = CostTable(space, splits.task)
    aware = [name for name, kind in SCORERS.items() if any(SCORERS[part].needs_teacher for part in (name, *kind.parts))]
    blind = [name for name in SCORERS if name not in aware]
    plan = [("–", blind, [None])] + [(w, aware, list(teachers.values())) for w in ("untrained", "trained")]
    scores: dict[tuple[str, str], np.ndarray] = {}
    for weights, names, looked_at in plan:
        shape = (arguments.score_seeds, len(students), len(looked_at))
        scores |= {(name, weights): np.full(shape, np.nan) for name in names}
        for k, t in itertools.product(range(arguments.score_seeds), range(len(looked_at))):
            evaluator = Evaluator(
                space,
                splits.task,
                names,
                Conditions(
                    draw_batch(splits.train, 64, k),
                    copy.deepcopy(looked_at[t]),
                    k,
                    trained=weights == "trained",
                    comparable=True,
                ),
                Means(costs=costs),
            )
            for i, architecture in enumerate(students):
                with contextlib.suppress(CandidateError):
                    for name, value in evaluator(architecture).values.items():
                        scores[name, weights][k, i, t] = value
        print(f"\rscored {', '.join(names)}", flush=True)
    return scores


def _print_setting(
    teachers: dict[str, PooledClassifier],
    space: SearchSpace,
    splits: Splits,
    measured: ImageSplit,
    rows: dict[tuple[str, str, int], dict[str, Any]],
    arguments: argparse.Namespace,
) -> None:
    machine, data = describe_machine(), arguments.images.stem if arguments.images else "digits"
    sizes, shape = splits.sizes, " x ".join(map(str, splits.task.input_shape))
    print(
        f"\n{arguments.students} students of {space.name}, {len(teachers)} teachers, {arguments.seeds} seeds; {data} "
        f"at {shape}, {arguments.teacher_train} images to train teachers on, the first {sizes['train']} of them to "
        f"distil on, {sizes['validation']} to choose the epoch, {len(measured)} to measure; {arguments.epochs} epochs "
        f"of plain KD, scores are means of {arguments.score_seeds} seeds\n"
        f"{machine['cpu']}, 1 thread, python {machine['python']}, torch {torch.__version__}, numpy {np.__version__}\n"
    )
    print("| teacher | parameters | accuracy | its students' accuracies, mean (lowest–highest) |\n|---|---|---|---|")
    for name, network in teachers.items():
        own = float((_logits(network, measured).argmax(1) == measured.targets).double().mean())
        theirs = [row["accuracy"] for (teacher, _, _), row in rows.items() if teacher == name]
        params = sum(weight.numel() for weight in network.parameters())
        print(f"| {name} | {params:,} | {own:.2%} | {np.mean(theirs):.2%} ({min(theirs):.2%}–{max(theirs):.2%}) |")
    seconds = [row["seconds"] for row in rows.values()]
    print(f"\n{np.mean(seconds):.1f} seconds a distillation, {max(seconds):.1f} at most\n")


def _settings(arguments: argparse.Namespace) -> str:
    """Names what a row depends on."""
    names = ("pool", "train", "teacher_train", "validation", "measured", "teacher_epochs", "epochs", "seed")
    return digest(
        arguments.space, arguments.images and arguments.images.name, *(getattr(arguments, name) for name in names)
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for weights and rows; an old one is gone on with"
    )
    parser.add_argument("--images", type=Path, help="npz with x_train and y_train; scikit-learn's digits without it")
    parser.add_argument("--pool", type=int, default=1, help="side of the squares of pixels averaged into one")
    parser.add_argument("--space", choices=list(SPACES), default="nb201")
    parser.add_argument("--students", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2, help="of the distillations, 2 or more")
    parser.add_argument(
        "--score-seeds", type=int, default=4, help="batches and weights of a score, 2 or more; their mean counts"
    )
    parser.add_argument("--train", type=int, default=500, help="images that students learn from")
    parser.add_argument(
        "--teacher-train", type=int, default=500, help="images that teachers learn from, those included"
    )
    parser.add_argument("--validation", type=int, default=250)
    parser.add_argument("--measured", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--teacher-epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of splits, students, teachers and resampling")
    return parser.parse_args()


if __name__ == "__main__":
    main()
