"""Statistics of latency samples and their uncertainty: percentiles with bounds, drift, and the ratio of two models.

Standard library and numpy only: a bundle's profile_device.py holds this file's text.

A percentile is given only where the sample supports it, by MLPerf LoadGen's early-stopping rule at 99 %
confidence (loadgen/early_stopping.cc): p90 needs 64 samples, p95 130, p99 662.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
_RESAMPLES, _AT_ONCE = 2000, 100


def samples_needed(percent: float, confidence: float = 0.99) -> int:
    """The smallest n with P[Binomial(n, 1 - p) <= 1] <= 1 - confidence."""
    tail = 1 - percent / 100
    n = 2
    while (1 - tail) ** n + n * tail * (1 - tail) ** (n - 1) > 1 - confidence:
        n += 1
    return n


def percentile(samples: Sequence[float], percent: float) -> float | None:
    """The sample at rank ceil(n p), or None where n is too small to support it."""
    if len(samples) < samples_needed(percent):
        return None
    return sorted(samples)[math.ceil(len(samples) * percent / 100) - 1]


def supported_percentiles(samples: Sequence[float]) -> dict[str, float]:
    """The supported percentiles by name: `p50_ms`, …"""
    found = {f"p{percent:g}_ms": percentile(samples, percent) for percent in PERCENTILES}
    return {name: value for name, value in found.items() if value is not None}


def bound_ranks(n: int, percent: float, confidence: float = 0.95) -> tuple[int, int] | None:
    """Ranks, from 1, of the two samples that enclose the true percentile; None where n is too small.

    The number of samples below the p-quantile is Binomial(n, p) for every distribution; each bound fails with
    probability (1 - confidence) / 2 at most (David and Nagaraja, Order Statistics, 3rd edition, section 7.1).
    """
    p, k = percent / 100, np.arange(n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_choices = factorials[n] - factorials - factorials[::-1]
    cumulative = np.cumsum(np.exp(log_choices + k * math.log(p) + (n - k) * math.log1p(-p)))  # P[K <= k]
    missed = (1 - confidence) / 2
    low = int(np.searchsorted(cumulative, missed, side="right"))  # the largest l with P[K <= l - 1] <= missed
    high = int(np.searchsorted(cumulative, 1 - missed)) + 1  # the smallest u with P[K <= u - 1] >= 1 - missed
    return (low, high) if low >= 1 and high <= n else None


def describe_samples(samples: Sequence[float]) -> dict[str, Any]:
    """Return n, mean, extremes, CV and the supported percentiles with their 95 % bounds; no sample is left out.

    The bounds assume independent calls; the spread between processes shows the variation that they miss.
    """
    values, found = np.asarray(samples), supported_percentiles(samples)
    ordered, bounds = sorted(samples), {}
    for percent in PERCENTILES:
        ranks = bound_ranks(len(ordered), percent)
        if f"p{percent:g}_ms" in found and ranks is not None:
            bounds[f"p{percent:g}_ms"] = (ordered[ranks[0] - 1], ordered[ranks[1] - 1])
    return {
        "n": len(ordered),
        "mean_ms": float(values.mean()),
        "min_ms": ordered[0],
        "max_ms": ordered[-1],
        "cv": float(values.std(ddof=1) / values.mean()) if len(ordered) > 1 else 0.0,
        "percentiles": found,
        "bounds": bounds,
    }


def paired_ratio(
    slow: Sequence[float], fast: Sequence[float], turn: int = 10, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Ratio of the slow model's latency to the fast one's, and its interval, by default at 95 %.

    The two took turns, so each pair of turns gives a ratio of medians in which a slow moment of the machine cancels.
    The result is the median of these ratios; the interval is between two of them, at the ranks of `bound_ranks`. It
    covers variation within this measurement, not between processes or days. With too few turns, at 95 % below six, it
    is the ratios' range, which covers less.
    """
    compared = min(len(slow), len(fast)) // turn * turn
    ratios = np.sort(_medians(slow[:compared], turn) / _medians(fast[:compared], turn))
    low, high = bound_ranks(len(ratios), 50, confidence) or (1, len(ratios))
    return float(np.median(ratios)), (float(ratios[low - 1]), float(ratios[high - 1]))


def drift(samples: Sequence[float], seed: int = 0, turn: int = 10) -> tuple[float, tuple[float, float]] | None:
    """Slowdown of the last third's median turn over the first third's, and its 95 % interval by a bootstrap.

    0.05 is 5 % slower. None if a third has fewer than three turns.
    """
    third = len(samples) // 3 // turn * turn
    if third < 3 * turn:
        return None
    rng = np.random.default_rng(seed)
    first, last = _medians(samples[:third], turn), _medians(samples[-third:], turn)
    low, high = np.quantile(_resampled_medians(last, rng) / _resampled_medians(first, rng), [0.025, 0.975])
    return float(np.median(last) / np.median(first)) - 1, (float(low) - 1, float(high) - 1)


def _medians(samples: Sequence[float], turn: int) -> np.ndarray:
    medians: np.ndarray = np.median(np.asarray(samples).reshape(-1, turn), axis=1)
    return medians


def _resampled_medians(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Medians of bootstrap resamples of the turns' medians: whole turns are drawn, as neighbouring calls are alike."""
    n = len(values)
    drawn = [np.median(values[rng.integers(0, n, (_AT_ONCE, n))], axis=1) for _ in range(_RESAMPLES // _AT_ONCE)]
    return np.concatenate(drawn)


def spread(values: Sequence[float]) -> float:
    """Range of the processes' figures, divided by their median."""
    return float((max(values) - min(values)) / np.median(values))
