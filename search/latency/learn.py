"""A latency model that learns during a search, and measures only the students that its interval leaves open.

Bayesian ridge regression of the latency on a network's operations, in relative errors: the cost of each feature has a
normal prior around zero, whose width predicts left-out students best (in closed form, so that a refit takes
milliseconds). A student's interval is as wide as the residuals of students that were left out, and wider for one
unlike those that were measured. A student is measured if the limit lies within its interval.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edgestill.pipeline.networks.trace import Trace
from edgestill.search.latency.features import RUNS, Runs, operation_features
from edgestill.search.latency.fit import Array
from edgestill.search.latency.model import Prediction

FIRST = 16  # students measured before anything is predicted
_COVERED = 0.9  # share of left-out students within their intervals, before these are widened
_WIDER = 20  # by this over the number of measured students: choosing among forms on few of them flatters their errors
_PENALTIES = tuple(10.0**k for k in range(1, -4, -1))  # less would let a fit run through a few students exactly
_PULLS = 3.0  # robust standard deviations, beyond which a residual counts linearly
_REWEIGHTINGS = 3
_FORMS = tuple((runs, moves) for runs in RUNS for moves in (False, True))


class _Fit(NamedTuple):
    runs: Runs
    moves: bool  # memory traffic and weights are features too
    names: tuple[str, ...]
    unit: Array  # [1 + P] of each cost
    costs: Array  # [1 + P], the constant first, in these units
    inverse: Array  # [1 + P, 1 + P], of the penalised normal matrix
    error: float  # mean absolute relative error of left-out students
    spread: float  # quantile of the left-out residuals, each in units of its own uncertainty
    least: float  # the same quantile of the residuals themselves; no interval is narrower


class LatencyLearner:
    """Function from a traced student to its predicted latency, or None if it has to be measured."""

    def __init__(self, limit_ms: float) -> None:
        self._limit_ms = limit_ms
        self._rows: dict[Runs, list[dict[str, float]]] = {runs: [] for runs in RUNS}
        self._latency_ms: list[float] = []
        self._fit: _Fit | None = None
        self.predicted = 0

    @property
    def measured(self) -> int:
        return len(self._latency_ms)

    def learn(self, trace: Trace, latency_ms: float) -> None:
        """Take a measured student in; the model is fitted anew when it is next asked."""
        for runs, rows in self._rows.items():
            rows.append(operation_features(trace, runs))
        self._latency_ms.append(latency_ms)
        self._fit = None

    def __call__(self, trace: Trace) -> Prediction | None:
        """Predict a student's latency if the limit lies outside of its interval."""
        found = self.predict(trace)
        if found is None or found.interval_ms[0] <= self._limit_ms <= found.interval_ms[1]:
            return None
        self.predicted += 1
        return found

    def predict(self, trace: Trace) -> Prediction | None:
        """Predict a student's latency; None where there is too little to predict it from."""
        if self.measured < FIRST:
            return None
        if self._fit is None:
            self._fit = _fitted(self._rows, np.array(self._latency_ms))
        return _prediction(self._fit, operation_features(trace, self._fit.runs))


def _prediction(fit: _Fit, row: Mapping[str, float]) -> Prediction | None:
    """Predict by a fit; None for an operation that no measured student has, or without a positive latency."""
    known = set(fit.names)
    if any(row[name] and name not in known for name in _used(row, fit.moves)):
        return None
    scaled = np.array([1.0, *(row.get(name, 0.0) for name in fit.names)]) / fit.unit
    latency = float(scaled @ fit.costs)
    if latency <= 0:
        return None
    relative = scaled / latency
    residual = max(fit.least, fit.spread * math.sqrt(1 + float(relative @ fit.inverse @ relative)))
    if residual >= 1:  # of the true latency: it has no upper bound
        return None
    return Prediction(float(f"{latency:.6g}"), float(f"{residual / (1 - residual):.6g}"))


def _fitted(tables: Mapping[Runs, Sequence[Mapping[str, float]]], latency_ms: Array) -> _Fit:
    """Fit every form and penalty; the least error on left-out students decides, the simpler form within 1 %."""
    fits = [
        _ridge(runs, moves, tables[runs], latency_ms, penalty)
        for runs, moves in _FORMS
        if runs == RUNS[0] or tables[runs] != tables[RUNS[0]]
        for penalty in _PENALTIES
    ]
    least = min(fit.error for fit in fits)
    return next(fit for fit in fits if fit.error <= 1.01 * least + 1e-9)


def _ridge(runs: Runs, moves: bool, table: Sequence[Mapping[str, float]], latency_ms: Array, penalty: float) -> _Fit:
    """Ridge regression of relative errors; residuals beyond _PULLS robust standard deviations count linearly."""
    names = tuple(sorted({name for row in table for name in _used(row, moves)}))
    rows = np.array([[1.0, *(row.get(name, 0.0) for name in names)] for row in table]) / latency_ms[:, None]
    unit = np.sqrt((rows**2).mean(axis=0)) + 1e-300
    rows, weight = rows / unit, np.ones(len(rows))
    for _ in range(_REWEIGHTINGS):
        normal = rows.T @ (rows * weight[:, None]) + penalty * np.eye(len(unit))
        inverse = np.linalg.inv(normal)
        costs = inverse @ (rows.T @ weight)
        kept = np.maximum(1 - weight * np.einsum("ij,jk,ik->i", rows, inverse, rows), 1e-6)
        left_out = (1 - rows @ costs) / kept
        typical = 1.4826 * np.median(np.abs(left_out)) + 1e-9
        weight = 1 / np.maximum(1, np.abs(left_out) / (_PULLS * typical))
    error = float(np.minimum(np.abs(left_out), 0.5).mean())
    spread, least = _quantile(left_out * np.sqrt(kept)), _quantile(left_out)
    return _Fit(runs, moves, names, unit, costs, inverse, error, spread, least)


def _quantile(left_out: Array) -> float:
    """Return the residual that the next one exceeds with probability 1 - _COVERED, widened."""
    n = len(left_out)
    place = min(n, math.ceil((n + 1) * _COVERED)) - 1
    return (1 + _WIDER / n) * float(np.sort(np.abs(left_out))[place])


def _used(row: Mapping[str, float], moves: bool) -> list[str]:
    return [name for name in row if moves or name.endswith((" count", " macs"))]
