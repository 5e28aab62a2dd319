"""The rule of promotion: a candidate against the promoted run, on the same test examples and in one profile.

Many nights look at one test split, and the luckiest of many equal students looks better than it is. So the k-th look at
a split gets the share 6 / (pi^2 k^2) of a total error of 5 %. These shares add up to 1 over all looks to come. By the
union bound, the chance that any student of any night is promoted as better without being so is at most 5 %, however
the looks depend on each other. The price: at the 30th look the interval is about 2 times as wide as at one of 95 %.

The ratio of latencies has the same level. Its interval covers variation within one measurement alone: two sessions of
one file may differ by a percent or two, reliably. So faster means by the margin that a format needs over fp32.
"""

# N examples

import math
from statistics import NormalDist
from typing import NamedTuple

from edgestill.pipeline.figures import milliseconds, points_interval
from edgestill.pipeline.frozen import Frozen

TOTAL_ERROR = 0.05  # of all looks at a test split


class Compared(Frozen):
    """A candidate beside the promoted run."""

    gained: int  # test examples that only the candidate gets right
    lost: int  # only the promoted one
    n: int
    look: int  # number of this look at the test split, from 1
    speedup: float  # promoted latency over the candidate's
    speedup_interval: tuple[float, float]  # at 1 minus the look's error
    latency_ms: float  # the candidate's median
    max_latency_ms: float | None  # the candidate's budget
    min_speedup: float  # least speedup that counts as faster, as for a format over fp32
    max_loss: float  # share of accuracy, or of mean recall, that a faster student may lose
    # Sum, and sum of squares, of the examples' differences weighted by class, where the mean recall chooses.
    recall: tuple[float, float] | None = None


class Verdict(NamedTuple):
    is_promoted: bool
    reason: str


def error_of(look: int) -> float:
    """Share of the total error that the k-th look at a test split may spend."""
    return TOTAL_ERROR * 6 / (math.pi * look) ** 2


def interval_of(gained: int, lost: int, n: int, error: float) -> tuple[float, float]:
    """Interval of the candidate's accuracy minus the promoted one's (Agresti and Min 2005), at 1 minus the error."""
    return interval_of_sums(gained - lost, gained + lost, n, error)


def interval_of_sums(total: float, squares: float, n: int, error: float) -> tuple[float, float]:
    """The same from the sum and the sum of squares of the n examples' differences, which classes may weigh."""
    z = NormalDist().inv_cdf(1 - error / 2)
    count = n + 2
    centre = total / count
    half = z * math.sqrt(max(squares + 1 - total**2 / count, 0.0)) / count
    return max(-1.0, centre - half), min(1.0, centre + half)


def judge(compared: Compared) -> Verdict:
    """Promote a candidate that is surely better within its latency budget, or surely faster without a loss."""
    total, squares = compared.recall or (compared.gained - compared.lost, compared.gained + compared.lost)
    low, high = interval_of_sums(total, squares, compared.n, error_of(compared.look))
    difference, unit = total / compared.n, "points" if compared.recall is None else "points of mean recall"
    slow, fast = compared.speedup_interval
    said = (
        f"{100 * difference:+.1f} {unit} {points_interval(low, high)} on {compared.n:,} test examples (look "
        f"{compared.look}, at {1 - error_of(compared.look):.2%}), {compared.speedup:.2f}× as fast "
        f"[{slow:.2f}, {fast:.2f}]"
    ).replace("-", "−")
    limit = compared.max_latency_ms
    if limit is not None and compared.latency_ms > limit:
        return Verdict(False, f"over its latency budget: {milliseconds(compared.latency_ms)} of {limit:g} ms; {said}")
    if low > 0:
        return Verdict(True, f"better by more than the interval: {said}")
    is_faster = slow >= compared.min_speedup
    if is_faster and low >= -compared.max_loss:
        return Verdict(True, f"faster, and it loses less than {100 * compared.max_loss:g} {unit}: {said}")
    why = "worse" if high < 0 else "faster, but a loss cannot be ruled out" if is_faster else "not surely better"
    return Verdict(False, f"{why}: {said}")
