"""Maps from influence to weight: decreasing, with weights of mean 1."""

# N training examples

from typing import Literal

import torch
from torch import Tensor

from edgestill.pipeline.errors import TrainingError

WeightMap = Literal["sigmoid", "exp", "drop"]
_EPS = torch.finfo(torch.float32).eps


def to_weights(
    influence: Tensor, how: WeightMap, *, sharpness: float, clip: float, bounds: tuple[float, float]
) -> Tensor:
    """Map influences [N] to weights [N] of mean 1: harmful (positive) examples weigh less.

    x is the influence divided by its range between the quantiles `clip` and 1 - clip, and clipped to them, because a
    few outliers would otherwise make all weights alike. If that range is mere rounding, all weights are 1.

    - sigmoid: 1 / (1 + exp(sharpness x)), Wang et al. 2020's form; 0 influence gets half of the largest weight.
    - exp: exp(-sharpness x); sharpness 2 gives the range of KD-AIF's published code, with the opposite sign.
    - drop: 1 where x <= 0, and 0 elsewhere.

    Args:
        bounds: least and greatest weight, around 1; the weights within move so that the mean stays 1.

    Raises:
        TrainingError: an influence is not finite, or `drop` has nothing left.
    """
    found = influence_range(influence, clip)
    if found is None:
        return torch.ones_like(influence).float()
    (low, high), influence = found, influence.double()
    x = influence.clamp(low, high) / (high - low)
    if how == "sigmoid":
        raw = torch.sigmoid(-sharpness * x)
    elif how == "exp":
        raw = torch.exp(-sharpness * (x - x.min()))
    else:
        raw = (x <= 0).double()
        if not bool(raw.any()):
            raise TrainingError("every training example came out harmful, so `drop` has none left; use sigmoid")
    return _with_mean_one(raw, *bounds).float()


def influence_range(influence: Tensor, clip: float) -> tuple[float, float] | None:
    """Return the quantiles `clip` and 1 - clip of influences [N]; None if they are no farther apart than rounding.

    To first order, weights of mean 1 change the reference loss by the quantiles' distance at most. If it is below
    float32's resolution of a loss of about 1 nat, or of the influences themselves, a division by it would make weights
    of noise.

    Raises:
        TrainingError: an influence is not finite.
    """
    if not bool(influence.isfinite().all()):
        raise TrainingError("an influence became NaN or infinite; raise kd_aif's damping, or lower learning_rate")
    if not len(influence):
        return None
    low, high = (float(torch.quantile(influence.double(), q)) for q in (clip, 1 - clip))
    return (low, high) if high - low > _EPS * max(1.0, 16 * abs(low), 16 * abs(high)) else None


def effective_share(weight: Tensor) -> float:
    """Effective sample size over the number of examples, (sum w)^2 / (n sum w^2), in (0, 1]."""
    weight = weight.double()
    return float(weight.sum() ** 2 / (weight**2).sum() / len(weight))


def _with_mean_one(raw: Tensor, lowest: float, highest: float) -> Tensor:
    """Return clamp(c raw, lowest, highest), with c found by bisection such that the mean is 1."""
    raw = raw.clamp(min=1e-12 * float(raw.max()))  # a 0 can be lifted too, if the bounds leave no other way
    below, above = 0.0, 1.0
    while above < 1e300 and float((above * raw).clamp(lowest, highest).mean()) < 1:
        below, above = above, above * 2
    for _ in range(100):
        middle = (below + above) / 2
        if float((middle * raw).clamp(lowest, highest).mean()) < 1:
            below = middle
        else:
            above = middle
    return (above * raw).clamp(lowest, highest)
