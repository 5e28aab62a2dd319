"""Difference of two ways of training, each tried on the same seeds and judged on the same examples."""

# S seeds, N examples

import math
from statistics import NormalDist

import numpy as np

from edgestill.pipeline.frozen import Frozen

_Z = 1.959964  # of a two-sided 95 % interval


class Difference(Frozen):
    """The first's figure minus the second's, as shares."""

    value: float  # mean over the seeds
    interval: tuple[float, float]  # 95 %
    seeds: int

    @property
    def sign(self) -> int:
        """1 if the interval lies above 0, -1 if below, 0 if it holds 0."""
        low, high = self.interval
        return 1 if low > 0 else -1 if high < 0 else 0

    @property
    def reversed(self) -> "Difference":
        """The second's figure minus the first's."""
        low, high = self.interval
        return Difference(value=-self.value, interval=(-high, -low), seeds=self.seeds)


def paired_by_seed(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None, comparisons: int = 1
) -> Difference:
    """Compare two ways of training by the examples answered right, row s of both by the same seed.

    The interval adds two parts in quadrature. One is Student's interval of the seeds' differences; a single seed has
    none. The other is that of the examples: each one's difference is its mean over the seeds, with half a pseudo
    observation either way (Agresti and Min 2005), so that a single seed gives `metrics.paired_difference`. Each part
    holds some of the other's variation, so the interval is rather too wide than too narrow.

    Args:
        first: [S, N] bool; second: the same.
        weights: [N] of the examples in the figure, of mean 1; None: the figure is the accuracy.
        comparisons: number of comparisons from which this one was picked for its outcome. They share the 5 % of the
            examples' part (Bonferroni).
    """
    z = _Z if comparisons == 1 else NormalDist().inv_cdf(1 - 0.025 / comparisons)
    scale = 1.0 if weights is None else weights
    differences = (first.astype(float) - second.astype(float)) * scale
    seeds, n = differences.shape
    by_example = differences.mean(0)
    centre = float(by_example.sum()) / (n + 2)
    squares = float((by_example**2).sum()) + 1
    of_examples = z * math.sqrt(max(squares - (n + 2) * centre**2, 0.0)) / (n + 2)
    half = math.hypot(of_examples, _of_seeds(differences.mean(1)))
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Difference(value=float(by_example.mean()), interval=(low, high), seeds=seeds)


def balanced_difference(first: np.ndarray, second: np.ndarray, targets: np.ndarray, comparisons: int = 1) -> Difference:
    """Compare two classifiers' mean recalls on the same examples: the first's minus the second's, [N] bool both."""
    return paired_by_seed(first[None], second[None], class_weights_of(targets), comparisons)


def class_weights_of(targets: np.ndarray) -> np.ndarray:
    """Weights [N] by which the weighted accuracy is the mean recall of the classes; their mean is 1."""
    counts = np.bincount(targets)
    weights: np.ndarray = len(targets) / (np.count_nonzero(counts) * counts[targets])
    return weights


def _of_seeds(differences: np.ndarray) -> float:
    """Half of Student's 95 % interval of a mean; 0 of a single value."""
    from scipy.stats import t

    count = len(differences)
    return 0.0 if count < 2 else float(t.ppf(0.975, count - 1)) * float(differences.std(ddof=1)) / math.sqrt(count)
