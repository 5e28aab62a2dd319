"""Classes of unlike sizes: weights of their examples, and a word of caution."""

# N examples, K classes

from collections.abc import Sequence

import torch
from torch import Tensor

from edgestill.pipeline.data.splits import UNLABELLED

IMBALANCED = 5  # examples of the largest class for one of the smallest


def class_weights(targets: Tensor) -> Tensor:
    """Weight of each example, [N] float64: all classes weigh the same in sum, and the mean over labelled examples is 1.

    Examples without a label weigh 1.
    """
    labelled = targets != UNLABELLED
    weights = torch.ones(len(targets), dtype=torch.float64)
    counts = torch.bincount(targets[labelled])
    share = labelled.sum().double() / (counts > 0).sum()
    weights[labelled] = share / counts[targets[labelled]]
    return weights


def imbalance(counts: Sequence[int], labels: Sequence[str]) -> str:
    """Caution against unlike sizes of the training classes, with the settings that help; empty if they are alike."""
    there = [(n, k) for k, n in enumerate(counts) if n]
    (least, smallest), (most, _) = min(there), max(there)
    if most <= IMBALANCED * least:
        return ""
    return (
        f"class {labels[smallest]!r} has {least:,} training examples and the largest class {most:,}, "
        f"{most / least:.1f} times as many: a student may leave it out; distill.training.balance=sampling or weights "
        "and distill.training.metric=balanced_accuracy help, and the same of teacher.training where it is trained here"
    )
