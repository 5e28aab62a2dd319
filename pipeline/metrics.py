"""What a classifier is judged by."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data import ImageSplit
from pipeline.frozen import Frozen
from pipeline.network import evaluating

_Z = 1.959964  # of a two-sided 95 % interval


class Metrics(Frozen):
    accuracy: float  # in [0, 1]
    cross_entropy: float  # mean, in nats
    n: int


def metrics_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Metrics:
    """Metrics over (logits [B, K], targets [B]) pairs."""
    correct, loss, count = 0, 0.0, 0
    for logits, targets in pairs:
        correct += int((logits.argmax(1) == targets).sum())
        loss += float(F.cross_entropy(logits.float(), targets, reduction="sum"))
        count += len(targets)
    return Metrics(accuracy=correct / count, cross_entropy=loss / count, n=count)


def evaluate(network: nn.Module, split: ImageSplit, device: torch.device, batch_size: int = 512) -> Metrics:
    """The network's metrics on a split, in evaluation mode; its mode is put back afterwards."""
    with evaluating(network), torch.inference_mode():
        return metrics_of((network(b.inputs), b.targets) for b in split.batches(batch_size, device))


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share of n (Wilson 1927); unlike the normal one it stays inside [0, 1]."""
    centre = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def paired_difference(lost: int, gained: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a difference of two accuracies on the same n examples (Agresti and Min 2005).

    Args:
        lost: examples that only the first classifier gets right; gained: only the second. Second minus first.
    """
    lost_, gained_, n_ = lost + 0.5, gained + 0.5, n + 2
    difference = (gained_ - lost_) / n_
    half = _Z * math.sqrt(max(lost_ + gained_ - (gained_ - lost_) ** 2 / n_, 0.0)) / n_
    return max(-1.0, difference - half), min(1.0, difference + half)
