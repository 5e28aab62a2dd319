"""Surrogate: predicts scores from genes and costs, and picks the candidates expected to widen a front the most."""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgestill.pipeline.networks.cost import Cost
from edgestill.search.pareto import Points, pareto_front
from edgestill.search.space import Architecture, SearchSpace

_RIDGE = 0.01  # on standardised fitness; only to make the system solvable, as the choices of one gene sum to 1
_POINTS = 2_000  # random points to estimate hypervolume: a share is known to about 1 %


def predict(
    space: SearchSpace,
    known: Sequence[tuple[Architecture, Cost, float]],
    asked: Sequence[tuple[Architecture, Cost]],
) -> list[float]:
    """Predict the fitness of `asked` by ridge regression on one-hot gene choices and log costs."""
    fitness = np.array([value for _, _, value in known])
    costs = _log_costs([cost for _, cost, _ in known] + [cost for _, cost in asked])
    costs = (costs - costs.mean(0)) / np.where(costs.std(0) > 0, costs.std(0), 1.0)
    genes = _one_hot(space, [a for a, _, _ in known] + [a for a, _ in asked])
    features = np.hstack([np.ones((len(genes), 1)), genes, costs])
    seen, new = features[: len(known)], features[len(known) :]
    mean, spread = fitness.mean(), fitness.std() or 1.0
    weights = np.linalg.solve(seen.T @ seen + _RIDGE * np.eye(seen.shape[1]), seen.T @ ((fitness - mean) / spread))
    predicted: list[float] = ((new @ weights) * spread + mean).tolist()
    return predicted


def pick_widening(points: Points, options: Points, count: int, rng: random.Random) -> list[int]:
    """Pick up to `count` options, each with the largest gain in hypervolume over the points and the earlier picks.

    Everything is minimised. Hypervolume is counted on random points in the box spanned by all of them. An option
    without a countable gain is not picked.
    """
    everything = np.vstack([points, options])
    low, high = everything.min(0), everything.max(0)
    scaled = (everything - low) / np.where(high > low, high - low, 1.0)
    box = np.random.default_rng(rng.getrandbits(64)).random((_POINTS, scaled.shape[1]))
    front = scaled[pareto_front(points)]  # dominates all that the points dominate
    is_free = ~(front[:, None] <= box[None]).all(axis=2).any(axis=0)
    adds = (scaled[len(points) :, None] <= box[None]).all(axis=2)  # [options, _POINTS]
    picked: list[int] = []
    while len(picked) < count:
        gains = (adds & is_free).sum(axis=1)
        best = int(gains.argmax())
        if gains[best] == 0:
            break
        picked.append(best)
        is_free &= ~adds[best]
    return picked


def _one_hot(space: SearchSpace, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
    columns = [(gene.name, choice) for gene in space.genes for choice in gene.choices]
    return np.array([[float(a.choices[name] == choice) for name, choice in columns] for a in architectures])


def _log_costs(costs: Sequence[Cost]) -> NDArray[np.float64]:
    known = [n for n in Cost.model_fields if all(isinstance(getattr(cost, n), int | float) for cost in costs)]
    return np.log1p(np.array([[getattr(cost, name) for name in known] for cost in costs], dtype=np.float64))
