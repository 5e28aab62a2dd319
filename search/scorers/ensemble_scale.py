"""The scales that the ensemble puts its parts on, from a sample of the space."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edgestill.pipeline.frozen import Frozen

_NORMAL_SPREAD = 2.563  # a normal distribution's 90th less its 10th percentile, in standard deviations
_MIN_SHARE = 0.5  # of the sample's architectures; a part with a score on fewer is left out


class Part(NamedTuple):
    weight: float
    log: bool  # True for a count, whose logarithm is used
    min_scale: float  # the part's spread over a wide space, so that a narrow one does not amplify noise


# Each min_scale is the spread over half of NAS-Bench-201's 725 published cells at 32 pixels
# (docs/explanation/scores.md).
PARTS: dict[str, Part] = {
    "params": Part(1.0, True, 0.81),
    "swap": Part(1.0, True, 0.81),
    "jacov": Part(1.0, False, 22.0),
    "az_trainability": Part(1.0, False, 0.52),
    "diswot_semantic": Part(0.1, False, 0.35),
    "diswot_relation": Part(0.1, False, 0.0032),
}


class Scale(Frozen):
    """Centre and scale of a part's scores over a space: z = clip((t - median) / scale, -4, 6), t = ln for counts."""

    median: float
    scale: float


class EnsembleScale(Frozen):
    """Scales of the parts with a score in a space, from random architectures of it without labels."""

    scales: dict[str, Scale]
    missing: tuple[str, ...]  # parts without a score on most architectures: left out for the whole space
    architectures: int


def fit_scale(columns: Mapping[str, Sequence[float]]) -> EnsembleScale:
    """Fit the scales to each part's scores of the same architectures, NaN for no score."""
    scales, missing = {}, []
    for name, part in PARTS.items():
        given = [natural(value, part) for value in columns.get(name, ())]
        found = [value for value in given if math.isfinite(value)]
        if not found or len(found) < _MIN_SHARE * len(given):
            missing.append(name)
            continue
        scales[name] = Scale(median=float(np.median(found)), scale=max(spread(found), part.min_scale))
    return EnsembleScale(scales=scales, missing=tuple(missing), architectures=max(map(len, columns.values())))


def natural(value: float, part: Part) -> float:
    """Return a part's score t in its natural unit, the logarithm for a count; NaN for a count of 0."""
    if not part.log or math.isnan(value):
        return value
    return math.log(value) if value > 0 else math.nan


def spread(values: Sequence[float]) -> float:
    """Robust spread (p90 - p10) / 2.563: a normal distribution's standard deviation, unmoved by the tails."""
    low, high = np.quantile(values, (0.1, 0.9))
    return float(high - low) / _NORMAL_SPREAD
