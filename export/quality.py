"""Quality of a model's answers beyond accuracy: by class, calibration of its confidence, under perturbations."""

# N examples, K classes

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from edgestill.export.run import Run
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.task import Task

ECE_BINS = 15  # of equal width; the number of Guo et al. 2017, arXiv:1706.04599
_BATCH = 256


class ClassScore(NamedTuple):
    n: int
    precision: float | None
    recall: float | None


def logits_of(run: Run, inputs: np.ndarray) -> np.ndarray:
    """Compute the logits [N, K] of all inputs, in batches."""
    parts = [run(np.ascontiguousarray(inputs[start : start + _BATCH])) for start in range(0, len(inputs), _BATCH)]
    return np.concatenate(parts)


def accuracy(logits: np.ndarray, targets: np.ndarray) -> float:
    return float((logits.argmax(1) == targets).mean())


def by_class(logits: np.ndarray, targets: np.ndarray) -> list[ClassScore]:
    """Precision and recall of each class."""
    answers, scores = logits.argmax(1), []
    for k in range(logits.shape[1]):
        hits = int(((answers == k) & (targets == k)).sum())
        given, there = int((answers == k).sum()), int((targets == k).sum())
        scores.append(ClassScore(there, hits / given if given else None, hits / there if there else None))
    return scores


def calibration(logits: np.ndarray, targets: np.ndarray, bins: int = ECE_BINS) -> tuple[float, float]:
    """Return the expected calibration error and the mean confidence of the softmax.

    ECE = sum over bins of (share of examples in the bin) * |accuracy - mean confidence|, in bins of equal width over
    confidences (0, 1] (Naeini et al. 2015; Guo et al. 2017, equation 3).
    """
    probabilities = softmax(logits)
    confidence, hit = probabilities.max(1), logits.argmax(1) == targets
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = (abs(float((hit[bin_of == b] - confidence[bin_of == b]).sum())) for b in range(bins))
    return sum(gaps) / len(targets), float(confidence.mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp((logits - logits.max(1, keepdims=True)).astype(np.float64))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


def perturbed(inputs: np.ndarray, task: Task, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the inputs under each perturbation of their kind, with its name; equal seeds give equal damage."""
    for name, damage in task.inputs.damages.items():
        yield name, damage(inputs, np.random.default_rng(derive_seed(seed, "robustness", name)))
