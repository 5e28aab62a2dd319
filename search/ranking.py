"""How well training-free scores rank students that were trained: Kendall's tau with bootstrap intervals.

A handful of students says little, and the intervals say how little.
"""

import itertools
import math
import random
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.cost import Cost
from pipeline.errors import BudgetError, UserError
from pipeline.frozen import Frozen
from search.config import LEAST_STUDENTS, Budget
from search.space import Architecture, SearchSpace
from search.strategies.feasible import Bounds, find_feasible

RESAMPLES = 2000
_POOL = 16  # feasible students looked at for each one that is trained
_TRIES = 20  # draws for each place in the pool before it counts as full

Interval = tuple[float, float]


class RankedStudent(Frozen):
    """A student that was scored without training and then trained briefly."""

    architecture: str
    cost: Cost
    scores: dict[str, float]  # a scorer that had none is left out
    accuracy: float | None  # on validation; None: the training failed
    seconds: float  # of training
    failure: str | None = None


class ScorerRank(Frozen):
    """How one scorer ranks the trained students."""

    scorer: str
    tau: float | None  # Kendall's tau-b with accuracy; None: scores or accuracies all equal, or too few
    interval: Interval | None  # 95 %, percentile bootstrap over students
    n: int  # trained students that it could score
    unscored: int


class Comparison(Frozen):
    """One scorer's tau less params', on the students that both could score, resampled together."""

    difference: float
    interval: Interval
    n: int


def rank_scorers(students: Sequence[RankedStudent], scorers: Sequence[str], seed: int) -> tuple[ScorerRank, ...]:
    """A row a scorer, the highest tau first, those without one last."""
    trained = [student for student in students if student.accuracy is not None]
    rows = []
    for scorer in scorers:
        scores, accuracies = _columns(trained, [scorer])
        tau, interval = _with_interval(lambda s, a: kendall_tau(s[0], a), scores, accuracies, seed)
        n = len(accuracies)
        rows.append(ScorerRank(scorer=scorer, tau=tau, interval=interval, n=n, unscored=len(trained) - n))
    return tuple(sorted(rows, key=lambda row: (row.tau is None, -(row.tau or 0.0))))


def compare_with_params(students: Sequence[RankedStudent], scorer: str, seed: int) -> Comparison | None:
    """The scorer's tau less params'; None where either has none."""
    scores, accuracies = _columns([s for s in students if s.accuracy is not None], [scorer, "params"])

    def lead(drawn: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
        found: np.ndarray = kendall_tau(drawn[0], accuracy) - kendall_tau(drawn[1], accuracy)
        return found

    difference, interval = _with_interval(lead, scores, accuracies, seed)
    if difference is None or interval is None:
        return None
    return Comparison(difference=difference, interval=interval, n=len(accuracies))


def kendall_tau(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kendall's tau-b over the last axis, [..., N] and [..., N] to [...]; NaN where one of them is constant."""
    signs = [np.sign(values[..., :, None] - values[..., None, :]) for values in (one, other)]
    concordance = (signs[0] * signs[1]).sum((-2, -1))
    untied = (signs[0] ** 2).sum((-2, -1)) * (signs[1] ** 2).sum((-2, -1))
    with np.errstate(invalid="ignore"):
        tau: np.ndarray = concordance / np.sqrt(untied)
    return tau


def spread_students(
    space: SearchSpace, cost: Callable[[Architecture], Cost], budget: Budget, count: int, rng: random.Random
) -> list[Architecture]:
    """Feasible students, one from each of `count` equally large groups of a random pool sorted by parameters.

    Raises:
        BudgetError: nothing in the space meets the budget.
        UserError: too few do for a rank correlation to mean anything.
    """
    pool = _pool(space, cost, budget, count * _POOL, rng)
    if len(pool) < LEAST_STUDENTS:
        raise UserError(
            f"{len(pool)} students of space {space.name!r} within the budget were found; ranking needs "
            f"{LEAST_STUDENTS}: raise search.budget, or offer the space more choices"
        )
    pool.sort(key=lambda architecture: (cost(architecture).params, architecture.key))
    count = min(count, len(pool))
    edges = [round(i * len(pool) / count) for i in range(count + 1)]
    return [rng.choice(pool[low:high]) for low, high in itertools.pairwise(edges)]


def _pool(
    space: SearchSpace, cost: Callable[[Architecture], Cost], budget: Budget, size: int, rng: random.Random
) -> list[Architecture]:
    bounds = Bounds(space, cost, budget)
    if space.size <= size:
        return list(filter(bounds.is_feasible, space.all_architectures()))
    found: dict[str, Architecture] = {}
    for _ in range(_TRIES * size):
        try:
            architecture = find_feasible(bounds, rng)
        except BudgetError:
            if not found:
                raise
            continue
        found[architecture.key] = architecture
        if len(found) == size:
            break
    return list(found.values())


def _columns(trained: Sequence[RankedStudent], scorers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Scores [scorers, N] and accuracies [N] of the students that all of the scorers could score."""
    kept = [student for student in trained if all(scorer in student.scores for scorer in scorers)]
    scores = np.array([[student.scores[scorer] for student in kept] for scorer in scorers])
    return scores, np.array([student.accuracy for student in kept], dtype=float)


def _with_interval(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray], scores: np.ndarray, accuracies: np.ndarray, seed: int
) -> tuple[float | None, Interval | None]:
    n = len(accuracies)
    if n < LEAST_STUDENTS:
        return None, None
    found = float(statistic(scores, accuracies))
    if math.isnan(found):
        return None, None
    draws = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    low, high = np.nanquantile(statistic(scores[:, draws], accuracies[draws]), (0.025, 0.975))
    return found, (float(low), float(high))
