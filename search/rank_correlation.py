"""Rank correlation of training-free scores with trained accuracies: Kendall's tau with its interval.

A handful of students says little, and the intervals say how little. They assume a bivariate normal distribution, with
its known variance of tau. A bootstrap of a perfect order would contain only perfect orders.
"""

import itertools
import math
import random
from collections.abc import Callable, Sequence

import numpy as np

from edgestill.pipeline.errors import BudgetError, UserError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.budget import Budget
from edgestill.search.config import LEAST_STUDENTS
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.strategies.feasible import Bounds, find_feasible

_Z = 1.959964  # of a two-sided 95 % interval
_TAUS = np.linspace(-1, 1, 20_001)  # possible ends of an interval
_POOL = 16  # feasible students in the pool for each trained one
_TRIES = 20  # draws for each place in the pool before it counts as full

Interval = tuple[float, float]


class RankedStudent(Frozen):
    """Student scored without training, then trained briefly."""

    architecture: str
    cost: Cost
    scores: dict[str, float]  # a scorer without a score is left out
    accuracy: float | None  # on validation; None: the training failed
    seconds: float  # of training
    failure: str | None = None


class ScorerRank(Frozen):
    """Rank correlation of one scorer with the trained students' accuracies."""

    scorer: str
    tau: float | None  # Kendall's tau-b with accuracy; None: scores or accuracies all equal, or too few
    interval: Interval | None  # 95 %, `tau_interval`
    n: int  # trained students that it could score
    unscored: int


class Comparison(Frozen):
    """One scorer's tau minus the tau of params, on the students scored by both."""

    difference: float
    interval: Interval
    n: int


def rank_scorers(students: Sequence[RankedStudent], scorers: Sequence[str]) -> tuple[ScorerRank, ...]:
    """Return a row for each scorer, the highest tau first, those without a tau last."""
    trained = [student for student in students if student.accuracy is not None]
    rows = []
    for scorer in scorers:
        scores, accuracies = _columns(trained, [scorer])
        n, tau = len(accuracies), _tau(scores[0], accuracies)
        interval = None if tau is None else tau_interval(tau, n)
        rows.append(ScorerRank(scorer=scorer, tau=tau, interval=interval, n=n, unscored=len(trained) - n))
    return tuple(sorted(rows, key=lambda row: (row.tau is None, -(row.tau or 0.0))))


def compare_with_params(students: Sequence[RankedStudent], scorer: str) -> Comparison | None:
    """Return the scorer's tau minus the tau of params; None if either has none.

    The interval combines those of the two taus (Zou 2007, doi:10.1037/1082-989X.12.4.399). A positive correlation of
    the scores with params is taken as 0, so the interval is wider than need be; a negative one is used as it is.
    """
    (scores, params), accuracies = _columns([s for s in students if s.accuracy is not None], [scorer, "params"])
    own, rival, n = _tau(scores, accuracies), _tau(params, accuracies), len(accuracies)
    if own is None or rival is None:
        return None
    related = min(0.0, math.sin(math.pi / 2 * float(kendall_tau(scores, params))))
    (low, high), (rival_low, rival_high) = tau_interval(own, n), tau_interval(rival, n)

    def joined(one: float, other: float) -> float:
        return math.sqrt(one**2 + other**2 - 2 * related * one * other)

    difference = own - rival
    interval = (difference - joined(own - low, rival_high - rival), difference + joined(high - own, rival - rival_low))
    return Comparison(difference=difference, interval=interval, n=n)


def tau_interval(tau: float, n: int) -> Interval:
    """Return the 95 % interval of Kendall's tau over n students: the values not rejected by a test at 5 %.

    The variance is a normal population's (Esscher 1924; Kendall and Gibbons 1990, Rank Correlation Methods). It is
    taken at the tested value, not at the sample's, so that a perfect order has an interval too, as with Wilson's
    interval of a share. Half a step of tau is the continuity correction. Ties make the interval approximate.
    """
    halves = np.arcsin(np.sin(math.pi / 2 * _TAUS) / 2)
    variance = 2 / (n * (n - 1)) * (1 - _TAUS**2 + 2 * (n - 2) * (1 / 9 - (2 / math.pi * halves) ** 2))
    allowed = _Z * np.sqrt(np.maximum(variance, 0)) + 2 / (n * (n - 1))
    kept = _TAUS[np.abs(tau - _TAUS) <= allowed]
    return float(kept[0]), float(kept[-1])


def kendall_tau(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kendall's tau-b over the last axis, [..., N] and [..., N] to [...]; NaN if either is constant."""
    signs = [np.sign(values[..., :, None] - values[..., None, :]) for values in (one, other)]
    concordance = (signs[0] * signs[1]).sum((-2, -1))
    untied = (signs[0] ** 2).sum((-2, -1)) * (signs[1] ** 2).sum((-2, -1))
    with np.errstate(invalid="ignore"):
        tau: np.ndarray = concordance / np.sqrt(untied)
    return tau


def spread_students(
    space: SearchSpace, cost: Callable[[Architecture], Cost], budget: Budget, count: int, rng: random.Random
) -> list[Architecture]:
    """Draw feasible students, one from each of `count` equally large groups of a random pool sorted by parameters.

    Raises:
        BudgetError: nothing in the space meets the budget.
        UserError: too few students meet it for a meaningful rank correlation.
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
    """Scores [scorers, N] and accuracies [N] of the students scored by all of the scorers."""
    kept = [student for student in trained if all(scorer in student.scores for scorer in scorers)]
    scores = np.array([[student.scores[scorer] for student in kept] for scorer in scorers])
    return scores, np.array([student.accuracy for student in kept], dtype=float)


def _tau(scores: np.ndarray, accuracies: np.ndarray) -> float | None:
    """Kendall's tau; None if there are too few students or either input is constant."""
    found = float(kendall_tau(scores, accuracies)) if len(accuracies) >= LEAST_STUDENTS else math.nan
    return None if math.isnan(found) else found
