"""Pareto fronts of candidates: fitness is maximised, every known cost minimised."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgestill.pipeline.networks.cost import Cost

_COSTS = tuple(name for name in Cost.model_fields if name != "latency_error")  # the error of a figure is no cost

Points = NDArray[np.float64]  # [N, M], every column to be minimised


class _Costly(Protocol):
    @property
    def cost(self) -> Cost: ...


def objectives(candidates: Sequence[_Costly], fitness: Sequence[float]) -> Points:
    """Return [N, M]: the negated fitness, then each cost known for all candidates."""
    costs = [[getattr(candidate.cost, name) for name in _COSTS] for candidate in candidates]
    known = [i for i in range(len(_COSTS)) if all(isinstance(row[i], int | float) for row in costs)]
    rows = [[-value, *(row[i] for i in known)] for value, row in zip(fitness, costs, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 1 + len(known))


def pareto_front(points: Points) -> list[int]:
    """Return the indices of the non-dominated rows, in order; equal rows are all kept."""
    order = np.lexsort(points.T[::-1])  # no row is dominated by a later one
    front: list[int] = []
    for i in order:
        if not _dominated(points[i], points[front]).any():
            front.append(int(i))
    return sorted(front)


def sort_by_dominance(points: Points) -> list[list[int]]:
    """Deb's non-dominated sorting: the front, then the front of the rest, and so on."""
    left = list(range(len(points)))
    fronts = []
    while left:
        front = [left[i] for i in pareto_front(points[left])]
        fronts.append(front)
        left = sorted(set(left) - set(front))
    return fronts


def crowding_distances(points: Points) -> list[float]:
    """Deb's crowding distance within one front: the summed relative sides of the box between a point's neighbours.

    It is infinite for the extremes of each objective.
    """
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
        distance[order[[0, -1]]] = np.inf
    found: list[float] = distance.tolist()
    return found


def _dominated(point: Points, others: Points) -> NDArray[np.bool_]:
    """Mask of the others dominating the point: nowhere worse and somewhere better."""
    return np.asarray((others <= point).all(axis=1) & (others < point).any(axis=1))
