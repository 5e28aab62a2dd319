"""Statistics of a table of students by teachers: main effects, what is left of each pair, and what predicts it."""

# S students, T teachers

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 2000


class Estimate(NamedTuple):
    value: float
    low: float  # 95 % percentiles of a bootstrap over students
    high: float

    def __str__(self) -> str:
        return "–" if np.isnan(self.value) else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def interaction(table: np.ndarray, *, standardise: bool) -> np.ndarray:
    """[S, T] less the student's mean and the teacher's; each teacher's spread set to 1 first if asked.

    Without that, a teacher whose students merely spread more than others' has an interaction, though it ranks them
    as the others do.
    """
    centred = table - table.mean(0)
    if standardise:
        spread = centred.std(0)
        centred = centred / np.where(spread > 0, spread, np.nan)
    found: np.ndarray = centred - centred.mean(1, keepdims=True)
    return found


def interaction_share(table: np.ndarray) -> float:
    """Of the variance between the pairs that is not the teacher's own, how much is the interaction's."""
    centred = table - table.mean(0)
    return float(interaction(table, standardise=False).var() / centred.var())


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of all entries; NaN where one has no spread."""
    return float((_unit_ranks(one) * _unit_ranks(other)).sum())


def bootstrap(statistic: Callable[[np.ndarray], float], students: int, seed: int) -> Estimate:
    """The statistic of a selection of students, with an interval over students drawn with replacement."""
    draws = np.random.default_rng(seed).integers(students, size=(RESAMPLES, students))
    found = [statistic(draw) for draw in draws]
    low, high = np.nanquantile(found, (0.025, 0.975)) if not np.isnan(found).all() else (np.nan, np.nan)
    return Estimate(statistic(np.arange(students)), float(low), float(high))


def correlation(one: np.ndarray, other: np.ndarray, seed: int) -> Estimate:
    """Spearman's rho between two [S, T] tables, with the interval of a bootstrap that keeps a student's row whole."""
    return bootstrap(lambda chosen: spearman(one[chosen], other[chosen]), len(one), seed)


def reliability(tables: np.ndarray, seed: int) -> Estimate:
    """The mean over pairs of repeats [R, S, T] of the correlation between the two."""
    pairs = list(itertools.combinations(tables, 2))
    return bootstrap(lambda c: float(np.mean([spearman(a[c], b[c]) for a, b in pairs])), tables.shape[1], seed)


def permutation_p(scores: list[np.ndarray], target: np.ndarray, seed: int) -> tuple[list[float], list[float]]:
    """Two-sided p of each score's rho, alone and allowing for having tried them all (Westfall and Young's max).

    Under the null the students' rows of a score's interaction are exchangeable; a row stays whole, because its
    entries add to 0.
    """
    rng, ranks = np.random.default_rng(seed), _unit_ranks(target)
    orders = rng.permuted(np.tile(np.arange(len(target)), (RESAMPLES, 1)), axis=1)
    observed = np.array([abs(spearman(score, target)) for score in scores])
    columns = [np.abs(np.einsum("rst,st->r", _unit_ranks(score)[orders], ranks)) for score in scores]
    chance = np.nan_to_num(np.stack(columns, axis=1))
    found = [
        np.where(np.isnan(observed), np.nan, (1 + (by_chance >= observed - 1e-12).sum(0)) / (RESAMPLES + 1))
        for by_chance in (chance, chance.max(1, keepdims=True))
    ]
    return found[0].tolist(), found[1].tolist()


def ceiling(reliability: float, repeats: int) -> float:
    """The correlation that a perfect predictor has with the mean of so many repeats (Spearman and Brown's formula)."""
    if not reliability > 0:
        return 0.0
    return float(np.sqrt(repeats * reliability / (1 + (repeats - 1) * reliability)))


def _unit_ranks(table: np.ndarray) -> np.ndarray:
    """Ranks over all entries, centred, of norm 1; NaN where the entries are equal or not finite."""
    ranks = rankdata(table).reshape(table.shape)
    centred = ranks - ranks.mean()
    norm = np.linalg.norm(centred)
    found: np.ndarray = centred / norm if norm > 0 and np.isfinite(table).all() else np.full(table.shape, np.nan)
    return found
