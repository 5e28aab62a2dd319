"""Training-free search against training-based search of one space on digits: wall time, and what the students reach.

    python benchmarks/training_free.py [--scorers diswot] [--evaluations 1000] [--trained 40] [--epochs 12]

The `digits` preset's budget and recipe, its space with finer widths and more blocks. Training-free: the product's own
search scores `--evaluations` candidates. Training-based, the random search of DisWOT's paper: candidates drawn at
random within budget, each trained on the labels for `--epochs` epochs, the best on validation wins; only `--trained`
are measured, and the time of as many as the other search looks at is extrapolated from them and said to be. Every
winner, the largest student within budget that the search finds (`params`) and random ones are then distilled by the
preset's recipe with every seed, and measured on images that nothing else looked at.

(It is not called search.py: a script's folder comes first among the places to import from, and `search` is a package.)
"""

import argparse
import functools
import math
import os
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from lib.carve import carve
from torch import nn

from edgestill.distill.train import distill
from edgestill.flows.config import RunConfig, load_config
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import ImageSplit, Splits, draw_batch
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.teachers import build_teacher
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import Metrics, evaluate
from edgestill.pipeline.training.objective import Supervised
from edgestill.search.scorers import SCORERS
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.search import find_student
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import make_space
from edgestill.search.strategies.feasible import Bounds, find_feasible

_CPU = torch.device("cpu")
_SIZES = {"train": 1010, "validation": 202, "measured": 585}  # the first two are the preset's
_BLOCKS = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1]]
_WIDTHS = [list(range(4, 25, 2)), list(range(4, 33, 2)), [64]]  # the last is the teacher's, as in the preset

T = TypeVar("T")


def configuration(scorer: str, evaluations: int, seed: int) -> RunConfig:
    """The preset over the larger space, one search and nothing beside it."""
    settings = {
        "seed": seed,
        "search.space.blocks": _BLOCKS,
        "search.space.widths": _WIDTHS,
        "search.scorer": scorer,
        "search.baselines": [],
        "search.evaluations": evaluations,
        "search.shortlist": 0,
        "search.workers": 1,  # as many processes as train
    }
    return load_config(preset="digits", settings=[f"{key}={value}" for key, value in settings.items()])


class Taken(NamedTuple):
    wall: float  # seconds
    cpu: float


class Found(NamedTuple):
    """What a search gives."""

    search: str
    looked_at: str
    taken: Taken | None
    winners: tuple[Architecture, ...]  # more than one only where chance is the method


class Trained(NamedTuple):
    architecture: Architecture
    validation: Metrics
    taken: Taken


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    config = configuration(arguments.scorers[0], arguments.evaluations, arguments.seed)
    splits, measured = carve(None, **_SIZES, seed=arguments.seed, pad=config.data.augment.pad)
    space = make_space(config.search.space)
    bounds = Bounds(space, CostTable(space, splits.task), config.search.budget)
    feasible = sum(bounds.is_feasible(architecture) for architecture in space.all_architectures())
    if feasible < arguments.evaluations:
        raise SystemExit(f"{feasible} students of the space are within budget; ask for so many --evaluations at most")
    print(f"space of {space.size}, {feasible} within {config.search.budget.max_params:,} parameters", flush=True)

    free = [_search(name, splits, arguments) for name in dict.fromkeys((*arguments.scorers, "params"))]
    trained = _train_all(config, bounds, splits, arguments)
    rng = random.Random(derive_seed(arguments.seed, "controls"))
    controls = tuple(find_feasible(bounds, rng) for _ in range(arguments.random))
    found = [*free, *_picks_of_training(trained, free), Found("random", str(arguments.random), None, controls)]

    build = functools.partial(build_teacher, config.teacher, splits.task)
    (teacher, _), took = _timed(
        lambda: _train(build, splits, config.teacher.training, derive_seed(config.seed, "teacher"))
    )
    theirs = evaluate(teacher, measured, _CPU)
    print(f"teacher {config.teacher.architecture}: {theirs.accuracy:.2%} on {theirs.n} images, {took.wall:.0f} s")
    accuracies = _distil_all(found, teacher, config, space, splits, measured, arguments)
    _print_table(found, accuracies, bounds, arguments)
    _print_ratios(free, trained, arguments)


def _search(scorer: str, splits: Splits, arguments: argparse.Namespace) -> Found:
    """By the product's own search, from the making of its networks to the winner."""
    config = configuration(scorer, arguments.evaluations, arguments.seed)
    space = make_space(config.search.space)
    teacher = build_teacher(config.teacher, splits.task)

    def search() -> tuple[str, int]:
        batch = draw_batch(splits.train, config.search.batch_size, arguments.seed)
        result = find_student(config.search, splits.task, batch, teacher, seed=arguments.seed)
        return result.winner.architecture, result.evaluated

    (winner, evaluated), taken = _timed(search)
    print(f"search by {scorer}: {evaluated} candidates, {taken.wall:.1f} s, {winner}", flush=True)
    return Found(f"`{scorer}`", f"{evaluated} scored", taken, (space.parse(winner),))


def _train_all(config: RunConfig, bounds: Bounds, splits: Splits, arguments: argparse.Namespace) -> list[Trained]:
    """Different students within budget at random, each trained on the labels with the preset's training, but short."""
    rng = random.Random(derive_seed(arguments.seed, "trained"))
    training = config.distill.training.model_copy(update={"epochs": arguments.epochs, "patience": 0})
    first = functools.partial(bounds.space.build, find_feasible(bounds, rng), splits.task)
    _train(first, splits, training.model_copy(update={"epochs": 1}), 0)  # what a process loads once is not timed
    found: dict[str, Trained] = {}
    while len(found) < arguments.trained:
        architecture = find_feasible(bounds, rng)
        if architecture.key in found:
            continue
        seed = derive_seed(arguments.seed, "trained", architecture.key)
        build = functools.partial(bounds.space.build, architecture, splits.task)
        (_, reached), taken = _timed(functools.partial(_train, build, splits, training, seed))
        found[architecture.key] = Trained(architecture, reached, taken)
        print(f"trained {len(found)} of {arguments.trained}: {reached.accuracy:.2%} in {taken.wall:.1f} s", flush=True)
    return list(found.values())


def _picks_of_training(trained: list[Trained], free: list[Found]) -> list[Found]:
    """Of all that were trained, and of those whose trainings fit into each training-free search's wall time."""

    def pick(name: str, chosen: list[Trained]) -> Found:
        best = max(chosen, key=lambda one: (one.validation.accuracy, -one.validation.cross_entropy))
        taken = Taken(*(sum(column) for column in zip(*(one.taken for one in chosen), strict=True)))
        return Found(name, f"{len(chosen)} trained", taken, (best.architecture,))

    picks = [pick("training", trained)]
    for search in free:
        assert search.taken is not None
        spent, fitting = 0.0, []
        for one in trained:
            spent += one.taken.wall
            if spent > search.taken.wall:
                break
            fitting.append(one)
        if fitting and search.search != "`params`":
            picks.append(pick(f"training, in the time of {search.search}", fitting))
    return picks


def _train(
    build: Callable[[], nn.Module], splits: Splits, training: TrainingConfig, seed: int
) -> tuple[nn.Module, Metrics]:
    """On the labels; with its metrics on validation."""
    with drawn_from(seed):
        network = build()
    sets, augmentation = (splits.train, splits.validation), Augmentation(splits.augment)
    fitted = fit(network, Supervised(), *sets, training, seed=seed, device=_CPU, augmentation=augmentation)
    return network, fitted.best


def _distil_all(
    found: list[Found],
    teacher: nn.Module,
    config: RunConfig,
    space: SearchSpace,
    splits: Splits,
    measured: ImageSplit,
    arguments: argparse.Namespace,
) -> dict[str, list[float]]:
    """Architecture's key to accuracies on the measured images, one a seed; one found twice is distilled once."""
    accuracies: dict[str, list[float]] = {}
    for architecture in (winner for each in found for winner in each.winners):
        if architecture.key in accuracies:
            continue
        reached = accuracies[architecture.key] = []
        for k in range(arguments.seeds):
            seed = derive_seed(arguments.seed, "distill", k)
            with drawn_from(seed):
                student: nn.Module = space.build(architecture, splits.task)
            student = distill(student, teacher, splits, config.distill, seed=seed, device=_CPU).student
            reached.append(evaluate(student, measured, _CPU).accuracy)
        print(f"distilled {space.format(architecture)}: {', '.join(f'{a:.2%}' for a in reached)}", flush=True)
    return accuracies


def _print_table(
    found: list[Found],
    accuracies: dict[str, list[float]],
    bounds: Bounds,
    arguments: argparse.Namespace,
) -> None:
    machine = describe_machine()
    print(
        f"\n{machine['cpu']}, 1 thread, python {machine['python']}, torch {torch.__version__}; seed {arguments.seed}, "
        f"{arguments.seeds} distillations a student, {_SIZES['measured']} images measured\n\n"
        "| search by | looked at | wall s | CPU s | student | parameters | accuracy, mean (lowest–highest) |\n"
        f"|{'---|' * 7}"
    )
    for each in found:
        reached = [accuracy for winner in each.winners for accuracy in accuracies[winner.key]]
        wall, cpu = (f"{seconds:.1f}" for seconds in each.taken) if each.taken else ("–", "–")
        names = ", ".join(bounds.space.format(winner) for winner in each.winners)
        params = ", ".join(f"{bounds.cost(winner).params:,}" for winner in each.winners)
        spread = f"{statistics.fmean(reached):.2%} ({min(reached):.2%}–{max(reached):.2%})"
        print(f"| {each.search} | {each.looked_at} | {wall} | {cpu} | {names} | {params} | {spread} |")
    p = statistics.fmean(accuracy for reached in accuracies.values() for accuracy in reached)
    print(f"\nChance in the images alone: {math.sqrt(p * (1 - p) / _SIZES['measured']):.2%} standard error of each.\n")


def _print_ratios(free: list[Found], trained: list[Trained], arguments: argparse.Namespace) -> None:
    """By wall clock, and by processor time, which others on the machine disturb less."""
    each = Taken(*(statistics.fmean(column) for column in zip(*(one.taken for one in trained), strict=True)))
    whole = Taken(*(seconds * arguments.evaluations for seconds in each))
    print(
        f"Training {len(trained)} students for {arguments.epochs} epoch(s) took {each.wall:.2f} s each; "
        f"{arguments.evaluations} would take {whole.wall / 60:.1f} minutes (extrapolated)."
    )
    for search in free:
        assert search.taken is not None
        print(
            f"{search.search}: that is {whole.wall / search.taken.wall:.0f} times the training-free search's wall, "
            f"{whole.cpu / search.taken.cpu:.0f} times its processor time."
        )


def _timed(call: Callable[[], T]) -> tuple[T, Taken]:
    wall, cpu = time.perf_counter(), _cpu_s()
    result = call()
    return result, Taken(time.perf_counter() - wall, _cpu_s() - cpu)


def _cpu_s() -> float:
    """Seconds of processor time of this process and of its children that have ended: candidates are scored in forks."""
    return sum(os.times()[:4])


def _arguments() -> argparse.Namespace:
    default = [name for name in ("diswot", "ensemble") if name in SCORERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorers", nargs="+", choices=list(SCORERS), default=default)
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--trained", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=12, help="of each training of the training-based search")
    parser.add_argument("--random", type=int, default=3, help="students drawn at random as controls")
    parser.add_argument("--seeds", type=int, default=3, help="of the distillations")
    parser.add_argument("--seed", type=int, default=0, help="of the images, the searches and the teacher")
    return parser.parse_args()


if __name__ == "__main__":
    main()
