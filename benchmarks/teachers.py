"""Which student for which teacher: does any score predict the teacher-specific part of the ranking?

    python benchmarks/teachers.py --out FOLDER [--images mnist.npz --pool 3] [--space nb201] [--students 24]

Every student is distilled from every teacher by plain KD on the same few of the teachers' images, with the same effort
and from the same weights, once a seed, and measured on images held out: its accuracy, how often it agrees with its
teacher, and minus the divergence KL(teacher || student). The teacher-specific part of a value is what is left of it
after the teacher's mean and the student's mean are taken off; each teacher's spread is set to 1 first, since spread
does not change a ranking (the plain differences are reported beside). The same is done to each score, with untrained
teachers (DisWOT's protocol) and with the trained ones; a score that knows no teacher has none. The correlation of the
two seeds says how much there is to predict: where it is about 0, no score can be judged.

FOLDER keeps the teachers' weights and a line for every distillation, so that a run that was stopped goes on.
"""

import argparse
import contextlib
import copy
import dataclasses
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from carve import carve
from interaction import bootstrap, ceiling, correlation, interaction, interaction_share, permutation_p
from scipy.stats import kendalltau
from torch import Tensor, nn

from distill.config import DistillConfig
from distill.train import distill
from pipeline.blocks import CifarResNet
from pipeline.checkpoint import load_weights, weights_bytes, write_atomic
from pipeline.data import ImageSplit, Splits, draw_batch
from pipeline.errors import CandidateError
from pipeline.frozen import derive_seed, digest
from pipeline.network import PooledClassifier
from pipeline.provenance import describe_machine
from pipeline.task import Task
from pipeline.teacher import frozen
from pipeline.training import Supervised, TrainingConfig, fit
from search.evaluate import CostTable, Evaluator
from search.scorers import SCORERS
from search.space import Architecture, SearchSpace
from search.spaces import Nb201Config, Nb201Space, ResNetConfig, make_space

_CPU = torch.device("cpu")
_SPACES = {  # every student's embedding is 64 wide, as every teacher's, so that all of DisWOT applies
    "nb201": Nb201Config(cells=1),
    "resnet": ResNetConfig(blocks=((1, 2, 3),) * 3, widths=((4, 8, 16, 24), (8, 16, 32, 48), (64,))),
}
_POOLING_CELL = "|avg_pool_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_1x1~2|"
_TARGETS = {"accuracy": "accuracy", "agreement": "agreement with the teacher", "closeness": "minus KL to the teacher"}


class CoarseResNet(CifarResNet):
    """Sees its images at half the resolution, and is wide and shallow."""

    def trunk(self, inputs: Tensor) -> Tensor:
        coarse = F.avg_pool2d(inputs, 2, ceil_mode=True)
        return super().trunk(F.interpolate(coarse, size=inputs.shape[2:]))


def build_teachers(task: Task) -> dict[str, PooledClassifier]:
    classes, mean, std = task.num_classes, task.mean, task.std
    cells = Nb201Space(Nb201Config(cells=3))
    return {
        "deep": CifarResNet((9, 9, 9), (16, 32, 64), num_classes=classes, mean=mean, std=std),
        "pooling": cells.build(cells.parse(_POOLING_CELL), task),
        "coarse": CoarseResNet((1, 1, 1), (32, 64, 64), num_classes=classes, mean=mean, std=std),
    }


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    start = time.perf_counter()
    sizes = {"train": arguments.teacher_train, "validation": arguments.validation, "measured": arguments.measured}
    full, measured = carve(arguments.images, **sizes, seed=arguments.seed, pool=arguments.pool)
    arguments.out.mkdir(parents=True, exist_ok=True)
    teachers = _trained_teachers(full, arguments)
    splits = _first(full, arguments.train)
    space = make_space(_SPACES[arguments.space])
    students = choose_students(space, splits, arguments.students, arguments.seed)
    rows = _distil_all(teachers, space, students, splits, measured, arguments)
    seeds, names = range(arguments.seeds), list(teachers)
    targets = {
        target: np.array([[[rows[t, space.format(s), k][target] for t in names] for s in students] for k in seeds])
        for target in _TARGETS
    }
    scores = _score(teachers, space, students, splits, arguments)
    _print_setting(teachers, space, splits, measured, rows, arguments)
    _print_reliability(targets, arguments.seed)
    for target, values in targets.items():
        _print_interactions(scores, values, target, arguments.seed)
    _print_main_effects(scores, targets, arguments.seed)
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes, less what was read back from {arguments.out.name}/")


def _first(splits: Splits, train: int) -> Splits:
    """With so many of the training images."""
    fewer = ImageSplit(splits.train.images[:train], splits.train.targets[:train])
    return dataclasses.replace(splits, train=fewer, reference=fewer, sizes=splits.sizes | {"train": len(fewer)})


def choose_students(space: SearchSpace, splits: Splits, count: int, seed: int) -> list[Architecture]:
    """One live member from each of `count` classes of size with equally many members, of 20 x count drawn."""
    rng, costs = random.Random(derive_seed(seed, "students")), CostTable(space, splits.task)
    drawn = {a.key: a for a in (space.sample(rng) for _ in range(20 * count))}
    ordered = sorted(drawn.values(), key=lambda a: (costs(a).params, space.format(a)))
    batch = draw_batch(splits.train, 64, seed)
    alive = Evaluator(space, splits.task, batch, ["nwot"], teacher=None, seed=seed, guard=True, costs=costs)
    chosen = []
    for i in range(count):
        stratum = ordered[i * len(ordered) // count : (i + 1) * len(ordered) // count]
        for architecture in rng.sample(stratum, len(stratum)):
            with contextlib.suppress(CandidateError):
                alive(architecture)
                chosen.append(architecture)
                break
    return chosen


def _trained_teachers(splits: Splits, arguments: argparse.Namespace) -> dict[str, PooledClassifier]:
    """Trained on images cropped at random; read back where they were trained before."""
    config = TrainingConfig(epochs=arguments.teacher_epochs, batch_size=64, learning_rate=0.05, warmup_epochs=2)
    teachers = {}
    with _drawn_from(derive_seed(arguments.seed, "teachers")):
        teachers = build_teachers(splits.task)
    for name, network in teachers.items():
        file = arguments.out / f"{name}-{_settings(arguments)[:12]}.safetensors"
        if file.exists():
            load_weights(network, file)
        else:
            augmentation = splits.augment.model_copy(update={"pad": 1})
            seed = derive_seed(arguments.seed, "teacher", name)
            sets = (splits.train, splits.validation)
            fit(network, Supervised(), *sets, config, seed=seed, device=_CPU, augmentation=augmentation)
            write_atomic(file, weights_bytes(network))
        frozen(network)
    return teachers


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
    lines = journal.read_text().splitlines() if journal.exists() else []
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
        with journal.open("a") as file:
            file.write(json.dumps(rows[key]) + "\n")
        print(f"\r{done} of {len(wanted)} distillations", end="", flush=True)
    return rows


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
    with _drawn_from(own):
        student: nn.Module = space.build(architecture, splits.task)
    student, _ = distill(student, teacher, splits, config, seed=own, device=_CPU)
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
    blind = [name for name, kind in SCORERS.items() if not kind.needs_teacher]
    aware = [name for name, kind in SCORERS.items() if kind.needs_teacher]
    plan = [("–", blind, [None])] + [(w, aware, list(teachers.values())) for w in ("untrained", "trained")]
    scores = {}
    for weights, names, looked_at in plan:
        for name in names:  # one by one, so that a scorer that fails takes no other with it
            table = np.full((arguments.score_seeds, len(students), len(looked_at)), np.nan)
            for k, t in itertools.product(range(arguments.score_seeds), range(len(looked_at))):
                evaluator = Evaluator(
                    space,
                    splits.task,
                    draw_batch(splits.train, 64, k),
                    [name],
                    teacher=copy.deepcopy(looked_at[t]),  # re-initialised in place where it is to be untrained
                    seed=k,
                    trained=weights == "trained",
                    comparable=True,
                    costs=costs,
                )
                for i, architecture in enumerate(students):
                    with contextlib.suppress(CandidateError):
                        table[k, i, t] = evaluator(architecture).values[name]
            scores[name, weights] = table
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


def _print_reliability(targets: dict[str, np.ndarray], seed: int) -> None:
    heads = ("first seed with second", "student's mean", "teacher-specific", "plain differences", "share", "ceiling")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for target, values in targets.items():
        one, other = values[:2] if len(values) > 1 else (values[0], values[0])
        main = correlation(one.mean(1, keepdims=True), other.mean(1, keepdims=True), seed)
        ranked, plain = (
            correlation(interaction(one, standardise=flag), interaction(other, standardise=flag), seed)
            for flag in (True, False)
        )
        share, most = interaction_share(values.mean(0)), ceiling(ranked.value, len(values))
        print(f"| {_TARGETS[target]} | {main} | {ranked} | {plain} | {share:.0%} | {most:.2f} |")


def _print_interactions(scores: dict[tuple[str, str], np.ndarray], values: np.ndarray, target: str, seed: int) -> None:
    """A line for each score that looks at a teacher."""
    aware = {key: table for key, table in scores.items() if table.shape[2] > 1 and np.isfinite(table).all()}
    own = {key: interaction(table.mean(0), standardise=True) for key, table in aware.items()}
    wanted = [interaction(each, standardise=True) for each in values]
    mean, plain = (interaction(values.mean(0), standardise=flag) for flag in (True, False))
    alone, among = permutation_p(list(own.values()), mean, seed)
    heads = [f"seed {k}" for k in range(len(values))]
    print(f"\nTeacher-specific part of {_TARGETS[target]}, Spearman:\n")
    print(
        f"| score | teacher | mean of seeds | p | p among all | {' | '.join(heads)} | Kendall | plain | score's own |"
    )
    print(f"|{'---|' * (8 + len(heads))}")
    for (name, weights), p, q in zip(own, alone, among, strict=True):
        score, table = own[name, weights], aware[name, weights]
        each = [f"{correlation(score, part, seed).value:.2f}" for part in wanted]
        tau = kendalltau(score.ravel(), mean.ravel()).statistic
        raw = correlation(interaction(table.mean(0), standardise=False), plain, seed).value
        halves = [interaction(table[k], standardise=True) for k in range(min(2, len(table)))]
        print(
            f"| `{name}` | {weights} | {correlation(score, mean, seed)} | {p:.3f} | {q:.3f} | {' | '.join(each)} "
            f"| {tau:.2f} | {raw:.2f} | {correlation(halves[0], halves[-1], seed).value:.2f} |"
        )


def _print_main_effects(scores: dict[tuple[str, str], np.ndarray], targets: dict[str, np.ndarray], seed: int) -> None:
    """Means over teachers and seeds, of scores and targets; a student without a score ranks last."""
    print("\nRanking of the students' means over teachers, Kendall tau:\n")
    print(f"| score | teacher | {' | '.join(_TARGETS.values())} | no score |\n|{'---|' * (len(targets) + 3)}")
    for (name, weights), table in scores.items():
        found = table.mean((0, 2))
        ranked = np.where(np.isnan(found), np.nanmin(found) - 1, found)
        parts = []
        for values in targets.values():
            mean = values.mean((0, 2))

            def tau(chosen: np.ndarray, mean: np.ndarray = mean, ranked: np.ndarray = ranked) -> float:
                return float(kendalltau(ranked[chosen], mean[chosen]).statistic)

            parts.append(str(bootstrap(tau, len(mean), seed)))
        print(f"| `{name}` | {weights} | {' | '.join(parts)} | {np.isnan(found).sum()} |")


@contextlib.contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _settings(arguments: argparse.Namespace) -> str:
    """Names what a row depends on."""
    names = ("pool", "train", "teacher_train", "validation", "measured", "teacher_epochs", "epochs", "seed")
    return digest(arguments.space, str(arguments.images), *(getattr(arguments, name) for name in names))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for weights and rows; an old one is gone on with"
    )
    parser.add_argument("--images", type=Path, help="npz with x_train and y_train; scikit-learn's digits without it")
    parser.add_argument("--pool", type=int, default=1, help="side of the squares of pixels averaged into one")
    parser.add_argument("--space", choices=list(_SPACES), default="nb201")
    parser.add_argument("--students", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2, help="of the distillations")
    parser.add_argument("--score-seeds", type=int, default=4, help="batches and weights that a score is the mean of")
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
