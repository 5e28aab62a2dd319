"""How well each training-free score ranks trained networks, and what it costs.

    python benchmarks/proxies.py proxies_725.json cifar10.npz [--half choose] [--sample 100] [--seed 0]
    python benchmarks/proxies.py s0_cifar100_plain_accuracy.txt cifar10.npz

The first file is either NAS-Bench-201's, from NAS-Bench-Suite-Zero (Krishnakumar et al. 2022): validation accuracies
by data set and cell, with cells as tuples over the edges (1,2) (1,3) (1,4) (2,3) (2,4) (3,4) of operations [skip,
none, 3x3, 1x1, avgpool]; or DisWOT's space S0, its repository's `exps/s1-gt-cls.txt`: lines of `abc accuracy`, the
basic blocks of three stages. The second has `x_train` [N, H, W, C] uint8 and `y_train`. Choices are to be made on
`--half choose` and reported on `--half report`, split by the SHA-256 of the architecture's string.

`ensemble - x` is the ensemble less that part; the spreads, (p90 - p10) / 2.563, are what its least scales are from.
`published rank sum` adds the ranks of the file's own synflow, nwot and jacov. An architecture without a score (dead, or
not finite) ranks below all others. Regret is the best accuracy under a cap of parameters less that of the score's pick,
in points, the mean over eight caps at the eighths of the sample's parameters. Brackets are 95 % percentiles of a
bootstrap over architectures; of regret, for which no bootstrap is valid since it hangs on which one is the best, they
are no interval but the middle 95 % of the regret among random halves of the architectures. Cost is the time of scoring
alone, construction and initialisation included, in bare forward passes of the whole batch without gradients, the total
over some architectures.
"""

import argparse
import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy
import torch
from lib.trained import Trained, check_params, read_cells, read_s0
from scipy.stats import kendalltau, rankdata

from edgestill.pipeline.data.datasets import NpzConfig
from edgestill.pipeline.data.loading import load_whole_train
from edgestill.pipeline.data.splits import Batch, draw_batch
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.network import initialise, look
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import TeacherConfig, build_teacher
from edgestill.search.scorers import SCORERS, builds_networks
from edgestill.search.scorers.ensemble import Ensemble
from edgestill.search.scorers.ensemble_scale import PARTS, natural, spread
from edgestill.search.scoring.conditions import Conditions, Means, P
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import Nb201Space, ResNetSpace

_RANK_SUM = ("synflow", "nwot", "jacov")
_PREPARED: dict[str, Frozen] = {}
_RESAMPLES = 1000
_CAPS = 8

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]  # (scores, accuracies, parameters), [N] each


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=arguments.threads))
    task, train = load_whole_train(NpzConfig(path=arguments.images))
    batch = draw_batch(train, arguments.batch_size, arguments.seed)
    is_s0 = arguments.table.suffix == ".txt"
    space: SearchSpace = ResNetSpace() if is_s0 else Nb201Space()
    listed = read_s0(arguments.table, space) if is_s0 else read_cells(arguments.table, arguments.dataset, space)
    rows = _sample(listed, space, arguments)
    costs = CostTable(space, task)
    if not is_s0:
        check_params(rows, costs)

    def make(names: Sequence[str]) -> Evaluator:
        teacher = build_teacher(TeacherConfig(architecture="resnet56"), task)
        conditions = Conditions(batch, teacher, arguments.seed, arguments.draws, comparable=True, guard=True)
        return Evaluator(space, task, names, conditions, Means(costs, _kept))

    published = _published(rows)
    architectures = [row.architecture for row in rows]
    columns = _score(make, arguments.scorers, architectures)
    if "ensemble" in arguments.scorers:
        columns = _score_ensemble(make(["ensemble"]), architectures, dict(arguments.weight)) | columns
    columns |= published
    timed = [row.architecture for row in rows[: arguments.timed]]
    forwards = {name: _cost(make([name]), space, task, batch, timed) for name in arguments.scorers if timed}
    machine = describe_machine()
    print(
        f"{len(rows)} architectures of {space.name}, half {arguments.half}, seed {arguments.seed}, batch "
        f"{arguments.batch_size}, {arguments.draws} draw(s)\n{machine['cpu']}, {arguments.threads} thread(s), "
        f"python {machine['python']}, torch {torch.__version__}, scipy {scipy.__version__}\n"
    )
    params = np.array([costs(row.architecture).params for row in rows], dtype=float)
    _print_table(columns, forwards, np.array([row.accuracy for row in rows]), params, arguments.seed)


def _score(
    make: Callable[[Sequence[str]], Evaluator], names: Sequence[str], architectures: Sequence[Architecture]
) -> dict[str, np.ndarray]:
    """Scorer to [N], NaN where there is none, all but the ensemble; one initialisation is one forward pass."""
    columns: dict[str, np.ndarray] = {}
    plain = [name for name in names if not SCORERS[name].parts]
    for group in ([n for n in plain if not builds_networks(n)], [n for n in plain if builds_networks(n)]):
        evaluator = make(group) if group else None  # counts are had of dead candidates too
        columns |= {name: np.full(len(architectures), np.nan) for name in group}
        for i, architecture in enumerate(architectures if evaluator else ()):
            with contextlib.suppress(CandidateError):
                for name, value in evaluator(architecture).values.items():
                    columns[name][i] = value
    return columns


def _score_ensemble(
    evaluator: Evaluator, architectures: Sequence[Architecture], weights: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """The ensemble, the ensemble without each of its parts, and with other weights where some are given."""
    own = {name: part.weight for name, part in PARTS.items()}
    variants = {"ensemble": own} | {f"ensemble - {name}": own | {name: 0.0} for name in PARTS}
    if weights:
        variants[f"ensemble, {', '.join(f'{name} {weight:g}' for name, weight in weights.items())}"] = own | weights
    columns = {name: np.full(len(architectures), np.nan) for name in variants}
    taken: dict[str, list[float]] = {name: [] for name in PARTS}
    (whole,) = evaluator.composed
    assert isinstance(whole.scorer, Ensemble)
    for i, architecture in enumerate(architectures):
        with contextlib.suppress(CandidateError):
            drawn = whole.parts.drawn(architecture)
            for name, values in drawn.items():
                taken[name] += [natural(value, PARTS[name]) for value in values]
            rows = [dict(zip(drawn, values, strict=True)) for values in zip(*drawn.values(), strict=True)]
            z = [whole.scorer.standardised(row) for row in rows]
            for name, weight in variants.items():
                columns[name][i] = np.mean([sum(weight[part] * row[part] for part in row) for row in z])
    spreads = (
        f"{name} {spread([v for v in values if np.isfinite(v)]):.2g}" for name, values in taken.items() if values
    )
    print(f"spreads of the ensemble's parts: {', '.join(spreads)}")
    return columns


def _published(rows: Sequence[Trained]) -> dict[str, np.ndarray]:
    """The rank sum of three of the file's own scores; an architecture that lacks one is last by it."""
    if not any(name in row.published for row in rows for name in _RANK_SUM):
        return {}
    terms = ([row.published.get(name, -np.inf) for row in rows] for name in _RANK_SUM)
    return {"published rank sum": sum(rankdata(np.nan_to_num(term, nan=-np.inf)) for term in terms)}


def _kept(key: str, kind: type[P], compute: Callable[[], P]) -> P:
    """The ensemble's scale is fitted once, for the table and for its timing."""
    kept = _PREPARED.get(key)
    found = kept if isinstance(kept, kind) else compute()
    _PREPARED[key] = found
    return found


def _cost(
    evaluator: Evaluator, space: SearchSpace, task: Task, batch: Batch, architectures: Sequence[Architecture]
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


def _print_table(
    columns: dict[str, np.ndarray], forwards: dict[str, float], accuracy: np.ndarray, params: np.ndarray, seed: int
) -> None:
    caps = np.quantile(params, np.arange(1, _CAPS + 1) / _CAPS)
    metrics: dict[str, Metric] = {
        "Kendall tau": lambda s, a, p: float(kendalltau(s, a).statistic),
        "Spearman": lambda s, a, p: _spearman(s, a),
        "partial given params": _partial,
        "mean regret": lambda s, a, p: mean_regret(s, a, p, caps),
    }
    rng, n = np.random.default_rng(seed), len(accuracy)
    draws = rng.integers(n, size=(_RESAMPLES, n))
    halves = random_halves(n, rng)
    print(f"| scorer | {' | '.join(metrics)} | no score | bare forwards |\n|{'---|' * (len(metrics) + 3)}")
    for name, column in columns.items():
        scores = np.where(np.isnan(column), np.nanmin(column) - 1, column)
        parts = [
            with_range(metric, scores, accuracy, params, halves if title == "mean regret" else draws)
            for title, metric in metrics.items()
        ]
        cost = f"{forwards[name]:.2f}" if name in forwards else ""
        print(f"| `{name}` | {' | '.join(parts)} | {np.isnan(column).sum()} | {cost} |")


def random_halves(n: int, rng: np.random.Generator) -> np.ndarray:
    """[resamples, n // 2] positions, drawn without replacement."""
    return rng.permuted(np.tile(np.arange(n), (_RESAMPLES, 1)), axis=1)[:, : n // 2]


def with_range(metric: Metric, scores: np.ndarray, accuracy: np.ndarray, params: np.ndarray, draws: np.ndarray) -> str:
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


def mean_regret(scores: np.ndarray, accuracy: np.ndarray, params: np.ndarray, caps: np.ndarray) -> float:
    """Ties go to the one with fewer parameters, as in a search."""
    regrets = []
    for cap in caps:
        feasible = np.flatnonzero(params <= cap)
        if len(feasible):
            pick = min(feasible, key=lambda i: (-scores[i], params[i]))
            regrets.append(accuracy[feasible].max() - accuracy[pick])
    return float(np.mean(regrets))


def _sample(rows: Sequence[Trained], space: SearchSpace, arguments: argparse.Namespace) -> list[Trained]:
    def half(row: Trained) -> str:
        return ("choose", "report")[hashlib.sha256(space.format(row.architecture).encode()).digest()[0] % 2]

    kept = [row for row in rows if arguments.half in (None, half(row))]
    return random.Random(arguments.seed).sample(kept, min(arguments.sample or len(kept), len(kept)))


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"{name!r} is no part of the ensemble; its parts are {', '.join(PARTS)}")
    return name, float(weight)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="accuracies: NAS-Bench-201's JSON or S0's txt")
    parser.add_argument("images", type=Path, help="npz with x_train and y_train")
    parser.add_argument("--dataset", default="cifar10", help="a key of the table; the images should be of it")
    parser.add_argument("--scorers", nargs="+", choices=list(SCORERS), default=list(SCORERS))
    parser.add_argument(
        "--weight", nargs="+", type=_weight, default=[], metavar="PART=W", help="a row of the ensemble with these"
    )
    parser.add_argument("--sample", type=int, help="architectures drawn by seed; all without it")
    parser.add_argument("--half", choices=("choose", "report"), help="both without it")
    parser.add_argument("--timed", type=int, default=10, help="architectures whose scoring is timed")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
