"""Teacher hacking: a student that comes ever nearer to its teacher and ever farther from the truth.

After Tiapkin et al. 2025, ICML, arXiv:2502.02671. The distance to the teacher is the proxy, that to the truth, where it
is known, golden. Without the truth there is an alarm: the proxy falls by a power law while a student learns what
generalises, so late points off the line through the early ones, on logarithmic axes, are suspect. The paper reads its
line off by eye; the bound of residuals is ours. benchmarks/hacking.py measures how often the alarm is wrong.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FEWEST = 8  # points


class Hacking(NamedTuple):
    """Comparison of the curves, where the truth is known."""

    is_hacked: bool
    golden_best: int  # step of the least golden distance
    proxy_best: int
    rise: float  # of the golden distance from its least to its last, over its least


class Alarm(NamedTuple):
    rings: bool
    residual: float  # of the late points, in standard deviations of the early ones; median
    slope: float  # of the early line: the power law's exponent


def hacking(proxy: Sequence[float], golden: Sequence[float], margin: float = 0.02) -> Hacking:
    """Compare the distances after each step; hacked is a proxy that fell on while golden rose by `margin` of its least.

    Raises:
        ValueError: the curves are of different lengths, or empty.
    """
    if len(proxy) != len(golden) or not len(proxy):
        raise ValueError(f"curves of {len(proxy)} and {len(golden)} steps cannot be compared")
    best = int(np.argmin(golden))
    rise = golden[-1] / max(golden[best], 1e-12) - 1
    return Hacking(rise > margin and proxy[-1] < proxy[best], best + 1, int(np.argmin(proxy)) + 1, rise)


def alarm(proxy: Sequence[float], bound: float = 3.0, early: float = 0.5) -> Alarm:
    """Ring if the last quarter of log proxy lies beyond `bound` deviations from the line through the early points.

    Args:
        proxy: distance to the teacher after each step of a training, above 0.
        early: share of the points, on the logarithmic axis of steps, that the line goes through.

    Raises:
        ValueError: there are fewer than 8 points, or one that is not above 0.
    """
    values = np.asarray(proxy, dtype=np.float64)
    if len(values) < _FEWEST or not bool((values > 0).all()) or not bool(np.isfinite(values).all()):
        raise ValueError(f"an alarm needs at least {_FEWEST} finite distances above 0")
    steps, logs = np.log(np.arange(1, len(values) + 1)), np.log(values)
    fitted = steps <= early * steps[-1]
    fitted[: _FEWEST // 2] = True
    slope, offset = np.polyfit(steps[fitted], logs[fitted], 1)
    residuals = logs - (slope * steps + offset)
    scale = max(float(residuals[fitted].std(ddof=2 if fitted.sum() > 2 else 0)), 1e-6)
    late = float(np.median(residuals[-max(1, len(values) // 4) :])) / scale
    return Alarm(abs(late) > bound, late, float(slope))
