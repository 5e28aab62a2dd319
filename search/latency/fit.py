"""Fit of a latency model: non-negative costs of the operations, and a smooth correction.

    latency = base · exp(correction),    base = Σ_j c_j · feature_j,  c_j >= 0

The costs c_j minimise relative errors and are robust: a slow moment of a device must not bend them (Huber's weights,
by iterated reweighting). The correction is the posterior mean of a Gaussian process with an RBF kernel over the log
features, fitted to log(latency / base). Its length and noise predict left-out samples best, in closed form. It is
dropped if it does not reduce the error on left-out samples.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgestill.search.latency.features import RUNS, Runs

Array = NDArray[np.float64]
FeatureTable = Sequence[Mapping[str, float]]

_SMALLEST_MS = 1e-6
_FOLDS = 6
_REWEIGHTINGS = 8
_LENGTHS = (1.0, 2.0, 4.0, 8.0)  # in standard deviations of a feature, times the square root of their number
_NOISES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # in variances of the process
_WORTH_IT = 0.97  # a correction stays if it brings the left-out error down to this share


class Correction(NamedTuple):
    """State of the fitted Gaussian process."""

    scale: Array  # [P] features are divided by these before log(1 + x)
    centre: Array  # [P]
    spread: Array  # [P]; 0 for a feature that does not vary, which is left out
    support: Array  # [N, P'] standardised, of the P' features that vary
    weights: Array  # [N]
    length: float


class Fit(NamedTuple):
    names: tuple[str, ...]
    costs: Array  # [1 + P], the constant first
    correction: Correction | None


class Choice(NamedTuple):
    """Form of a model, chosen by cross-validation."""

    runs: Runs
    moves: bool  # memory traffic and weights are features too, not only counts and multiply-accumulates
    smooth: bool  # with a correction


def choose(tables: Mapping[Runs, FeatureTable], latency_ms: Array, seed: int = 0) -> Choice:
    """Choose by cross-validation first the operations to count, then the features and the use of a correction.

    Among choices with errors within 1 % of the least, the earlier and simpler one is taken.
    """
    distinct = {runs: table for i, (runs, table) in enumerate(tables.items()) if table not in list(tables.values())[:i]}
    by_runs = [Choice(runs, True, False) for runs in RUNS if runs in distinct]
    best = _best(by_runs, tables, latency_ms, seed)
    return _best(
        [Choice(best.runs, moves, smooth) for smooth in (False, True) for moves in (False, True)],
        tables,
        latency_ms,
        seed,
    )


def _best(choices: Sequence[Choice], tables: Mapping[Runs, FeatureTable], latency_ms: Array, seed: int) -> Choice:
    if len(choices) == 1:
        return choices[0]
    errors = [_loss(cross_validate(tables[choice.runs], latency_ms, choice, seed), latency_ms) for choice in choices]
    return next(c for c, error in zip(choices, errors, strict=True) if error <= 1.01 * min(errors) + 1e-9)


def _loss(predicted: Array, latency_ms: Array) -> float:
    """Mean absolute error in logarithms, at most 0.5 for a sample, so that no single one decides."""
    return float(np.minimum(np.abs(np.log(predicted / latency_ms)), 0.5).mean())


def cross_validate(table: FeatureTable, latency_ms: Array, choice: Choice, seed: int) -> Array:
    """Predict each sample by a model fitted without its fold."""
    order = np.random.default_rng(seed).permutation(len(latency_ms))
    predicted = np.empty(len(latency_ms))
    for fold in range(_FOLDS):
        left_out = order[fold::_FOLDS]
        rest = np.setdiff1d(order, left_out)
        fitted = fit([table[i] for i in rest], latency_ms[rest], choice)
        predicted[left_out] = predict(fitted, [table[i] for i in left_out])
    return predicted


def fit(table: FeatureTable, latency_ms: Array, choice: Choice) -> Fit:
    """Fit a model to all given samples."""
    names = tuple(sorted({name for row in table for name in row if choice.moves or name.endswith((" count", " macs"))}))
    features = _matrix(table, names)
    costs = _costs(np.column_stack([np.ones(len(table)), features]), latency_ms)
    found = Fit(names, costs, None)
    if choice.smooth:
        left = np.log(latency_ms / _base(found, features))
        found = found._replace(correction=_correction(features, left))
    return found


def predict(fitted: Fit, table: FeatureTable) -> Array:
    """Predict latencies [N] in ms, rounded to six digits so that equal work has equal latency."""
    features = _matrix(table, fitted.names)
    predicted = _base(fitted, features)
    if fitted.correction is not None:
        predicted = predicted * np.exp(_corrected(fitted.correction, features))
    return np.array([float(f"{value:.6g}") for value in predicted])


def kendall_tau(first: Array, second: Array) -> float:
    """Kendall's tau-b; 0 if either input is constant."""
    a, b = (np.sign(x[:, None] - x[None, :]) for x in (first, second))
    pairs = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / pairs) if pairs else 0.0


def _matrix(table: FeatureTable, names: Sequence[str]) -> Array:
    return np.array([[row.get(name, 0.0) for name in names] for row in table]).reshape(len(table), len(names))


def _base(fitted: Fit, features: Array) -> Array:
    linear: Array = fitted.costs[0] + features @ fitted.costs[1:]
    return np.maximum(linear, _SMALLEST_MS)


def _costs(features: Array, latency_ms: Array) -> Array:
    """Non-negative least squares of relative errors, reweighted so that large ones count linearly, not squared."""
    from sklearn.linear_model import LinearRegression

    unit = np.sqrt(((features / latency_ms[:, None]) ** 2).mean(axis=0)) + 1e-300
    weight = 1 / (latency_ms + np.median(latency_ms))  # the first round: no tiny latency may decide alone
    costs = np.zeros(features.shape[1])
    for _ in range(_REWEIGHTINGS):
        solver = LinearRegression(positive=True, fit_intercept=False)
        costs = solver.fit(features / unit * weight[:, None], latency_ms * weight).coef_ / unit
        error = np.abs(features @ costs / latency_ms - 1)
        weight = 1 / latency_ms / np.sqrt(np.maximum(1, error / (1.5 * np.median(error) + 1e-9)))
    return costs


def _correction(features: Array, left: Array) -> Correction | None:
    """Fit the Gaussian process to the log residuals `left`; None if it does not help with left-out samples."""
    typical = float(np.median(np.abs(left))) * 1.5
    if typical < 1e-6:
        return None
    left = np.clip(left, -6 * typical, 6 * typical)
    scale = features.mean(axis=0) + 1e-12
    logs = np.log1p(features / scale)
    centre, spread = logs.mean(axis=0), logs.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 0.0)
    empty = Correction(scale, centre, spread, np.empty((0, 0)), np.empty(0), 1.0)
    support = _standardised(empty, features)
    if support.shape[1] == 0:
        return None

    def seen(errors: Array) -> float:
        return float(np.minimum(np.abs(errors), 3 * typical).mean())

    best, least = None, _WORTH_IT * seen(left)
    for length in _LENGTHS:
        values, vectors = np.linalg.eigh(_kernel(support, support, length))
        for noise in _NOISES:
            inverse = (vectors / (values + noise)) @ vectors.T
            weights = inverse @ left
            error = seen(weights / np.diag(inverse))  # left out one by one, in closed form
            if error < least:
                least = error
                best = empty._replace(support=support, weights=weights, length=length)
    return best


def _corrected(correction: Correction, features: Array) -> Array:
    kernel = _kernel(_standardised(correction, features), correction.support, correction.length)
    result: Array = kernel @ correction.weights
    return result


def _standardised(correction: Correction, features: Array) -> Array:
    vary = correction.spread > 0
    logs = np.log1p(features / correction.scale)
    result: Array = (logs[:, vary] - correction.centre[vary]) / correction.spread[vary]
    return result


def _kernel(one: Array, other: Array, length: float) -> Array:
    distance = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    result: Array = np.exp(-0.5 * np.maximum(distance, 0) / (length**2 * one.shape[1]))
    return result
