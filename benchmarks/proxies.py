"""How well each training-free score ranks trained NAS-Bench-201 networks, and what it costs.

    python benchmarks/proxies.py proxies_725.json cifar10.npz [--sample 100] [--seed 0] [--half choose]

The first file has validation accuracies by data set and cell, with cells as tuples over the edges (1,2) (1,3) (1,4)
(2,3) (2,4) (3,4) of operations [skip, none, 3x3, 1x1, avgpool]; the second has `x_train` [N, H, W, C] uint8 and
`y_train`. Choices are to be made on `--half choose` and reported on `--half report`, split by the SHA-256 of the
architecture's string.

A cell without a score (dead, or not finite) ranks below all others. Regret is the best accuracy under a cap of
parameters less that of the score's pick, in points, the mean over eight caps at the eighths of the sample's
parameters. Intervals are 95 % percentiles of a bootstrap over architectures. Cost is the time of scoring alone,
construction and initialisation included, in bare forward passes without gradients, the total over some candidates.
"""

import argparse
import ast
import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
import torch
from scipy.stats import kendalltau, rankdata

from pipeline.data import Batch, ImageSplit, draw_batch
from pipeline.errors import CandidateError
from pipeline.network import initialise, look
from pipeline.provenance import describe_machine
from pipeline.task import Task
from pipeline.teacher import TeacherConfig, build_teacher
from search.evaluate import CostTable, Evaluator
from search.scorers import SCORERS
from search.space import Architecture
from search.spaces import Nb201Space

_EDGES = ("edge01", "edge02", "edge03", "edge12", "edge13", "edge23")
_OPERATIONS = (1, 0, 3, 2, 4)  # the file's operation to ours
_RESAMPLES = 1000
_CAPS = 8

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]  # (scores, accuracies, parameters), [N] each


class Cell(NamedTuple):
    architecture: Architecture
    accuracy: float  # per cent
    params: float


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    space = Nb201Space()
    task, batch = _read_images(arguments.images, arguments.batch_size, arguments.seed)
    cells = _sample(_read_cells(arguments.table, arguments.dataset, space), space, arguments)
    costs = CostTable(space, task)
    _check_params(cells, costs)

    def make(names: Sequence[str]) -> Evaluator:
        teacher = build_teacher(TeacherConfig(architecture="resnet56"), task)
        options = {"seed": arguments.seed, "draws": arguments.draws, "guard": True, "costs": costs}
        return Evaluator(space, task, batch, names, teacher=teacher, **options)

    columns = _score(make, arguments.scorers, [cell.architecture for cell in cells])
    timed = [cell.architecture for cell in cells[: arguments.timed]]
    forwards = {name: _cost(make([name]), space, task, batch, timed) for name in arguments.scorers}
    machine = describe_machine()
    print(
        f"{len(cells)} cells, half {arguments.half}, seed {arguments.seed}, {arguments.dataset} validation accuracy, "
        f"batch {arguments.batch_size}, {arguments.draws} draw(s)\n{machine['cpu']}, {arguments.threads} thread(s), "
        f"python {machine['python']}, torch {torch.__version__}, scipy {scipy.__version__}\n"
    )
    _print_table(columns, forwards, cells, arguments.seed)


def _score(
    make: Callable[[Sequence[str]], Evaluator], names: Sequence[str], architectures: Sequence[Architecture]
) -> dict[str, np.ndarray]:
    """Scorer to [N], NaN where there is none; scorers of one initialisation share its forward pass."""
    columns = {name: np.full(len(architectures), np.nan) for name in names}
    for blind in (True, False):  # counts are had of dead candidates too
        group = [name for name in names if (SCORERS[name].initialisation is None) == blind]
        if not group:
            continue
        evaluator = make(group)
        for i, architecture in enumerate(architectures):
            try:
                values = evaluator(architecture).values
            except CandidateError:
                continue
            for name, value in values.items():
                columns[name][i] = value
    return columns


def _cost(
    evaluator: Evaluator, space: Nb201Space, task: Task, batch: Batch, architectures: Sequence[Architecture]
) -> float:
    """Seconds of scoring over seconds of a bare forward pass, which take turns."""
    scoring = bare = 0.0
    for architecture in architectures:
        network = space.build(architecture, task).train()
        initialise(network, "kaiming", 0)

        def forward(network: torch.nn.Module = network) -> None:
            with torch.no_grad():
                look(network, batch.inputs)

        def score(architecture: Architecture = architecture) -> None:
            try:
                evaluator(architecture)
            except CandidateError:
                return

        forward()
        bare += _seconds(forward)
        scoring += _seconds(score)
        bare += _seconds(forward)
    return 2 * scoring / bare


def _print_table(columns: dict[str, np.ndarray], forwards: dict[str, float], cells: Sequence[Cell], seed: int) -> None:
    accuracy = np.array([cell.accuracy for cell in cells])
    params = np.array([cell.params for cell in cells])
    caps = np.quantile(params, np.arange(1, _CAPS + 1) / _CAPS)
    metrics: dict[str, Metric] = {
        "Kendall tau": lambda s, a, p: float(kendalltau(s, a).statistic),
        "Spearman": lambda s, a, p: _spearman(s, a),
        "partial given params": _partial,
        "mean regret": lambda s, a, p: _mean_regret(s, a, p, caps),
    }
    draws = np.random.default_rng(seed).integers(len(cells), size=(_RESAMPLES, len(cells)))
    print(f"| scorer | {' | '.join(metrics)} | no score | bare forwards |\n|{'---|' * (len(metrics) + 3)}")
    for name, column in columns.items():
        scores = np.where(np.isnan(column), np.nanmin(column) - 1, column)
        parts = [_with_interval(metric, scores, accuracy, params, draws) for metric in metrics.values()]
        print(f"| `{name}` | {' | '.join(parts)} | {np.isnan(column).sum()} | {forwards[name]:.2f} |")


def _with_interval(
    metric: Metric, scores: np.ndarray, accuracy: np.ndarray, params: np.ndarray, draws: np.ndarray
) -> str:
    found = metric(scores, accuracy, params)
    if np.isnan(found):
        return "–"
    low, high = np.nanquantile([metric(scores[i], accuracy[i], params[i]) for i in draws], (0.025, 0.975))
    return f"{found:.2f} [{low:.2f}, {high:.2f}]"


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def _partial(scores: np.ndarray, accuracy: np.ndarray, params: np.ndarray) -> float:
    """Spearman of scores and accuracies with the parameters' ranks partialled out; none for params itself."""
    sa, sp, ap = _spearman(scores, accuracy), _spearman(scores, params), _spearman(accuracy, params)
    rest = (1 - sp**2) * (1 - ap**2)
    return (sa - sp * ap) / float(np.sqrt(rest)) if rest > 1e-9 else float("nan")


def _mean_regret(scores: np.ndarray, accuracy: np.ndarray, params: np.ndarray, caps: np.ndarray) -> float:
    """Ties go to the one with fewer parameters, as in a search."""
    regrets = []
    for cap in caps:
        feasible = np.flatnonzero(params <= cap)
        if len(feasible):
            pick = min(feasible, key=lambda i: (-scores[i], params[i]))
            regrets.append(accuracy[feasible].max() - accuracy[pick])
    return float(np.mean(regrets))


def _read_cells(table: Path, dataset: str, space: Nb201Space) -> list[Cell]:
    rows = json.loads(table.read_text())[dataset]
    cells = []
    for key, row in rows.items():
        choices = dict(zip(_EDGES, (_OPERATIONS[i] for i in ast.literal_eval(key)), strict=True))
        cells.append(Cell(space.make(choices), row["val_accuracy"], 1e6 * row["params"]["score"]))
    return sorted(cells, key=lambda cell: space.format(cell.architecture))


def _sample(cells: Sequence[Cell], space: Nb201Space, arguments: argparse.Namespace) -> list[Cell]:
    def half(cell: Cell) -> str:
        return ("choose", "report")[hashlib.sha256(space.format(cell.architecture).encode()).digest()[0] % 2]

    kept = [cell for cell in cells if arguments.half in (None, half(cell))]
    return random.Random(arguments.seed).sample(kept, min(arguments.sample or len(kept), len(kept)))


def _check_params(cells: Sequence[Cell], costs: CostTable) -> None:
    """The file's cells must be read as the networks that they were."""
    for cell in cells:
        found = costs(cell.architecture).params
        if abs(found - cell.params) > 1:
            raise SystemExit(f"{cell.architecture} has {found} parameters here and {cell.params:.0f} in the table")


def _read_images(path: Path, size: int, seed: int) -> tuple[Task, Batch]:
    with np.load(path) as data:
        images = torch.from_numpy(data["x_train"]).movedim(3, 1)
        targets = torch.from_numpy(data["y_train"]).long()
    pixels = images[:10_000].float() / 255
    mean, std = (tuple(values.tolist()) for values in (pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))))
    classes = int(targets.max()) + 1
    task = Task(labels=tuple(map(str, range(classes))), input_shape=tuple(images.shape[1:]), mean=mean, std=std)
    return task, draw_batch(ImageSplit(images, targets), size, seed)


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="accuracies by data set and cell, JSON")
    parser.add_argument("images", type=Path, help="npz with x_train and y_train")
    parser.add_argument("--dataset", default="cifar10", help="a key of the table; the images should be of it")
    parser.add_argument("--scorers", nargs="+", choices=list(SCORERS), default=list(SCORERS))
    parser.add_argument("--sample", type=int, help="cells drawn by seed; all without it")
    parser.add_argument("--half", choices=("choose", "report"), help="both without it")
    parser.add_argument("--timed", type=int, default=10, help="cells whose scoring is timed")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
