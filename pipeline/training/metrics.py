"""Metrics of classifiers, and comparisons of two classifiers on the same examples."""

import base64
import math
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.frozen import Frozen, Share, without_none
from edgestill.pipeline.networks.network import evaluating, logits_at

_Z = 1.959964  # of a two-sided 95 % interval


class Metrics(Frozen):
    accuracy: Share
    cross_entropy: float  # mean, in nats
    n: Annotated[int, Field(ge=1)]
    balanced_accuracy: Share | None = None  # mean recall of the classes, where it chooses

    @property
    def score(self) -> float:
        """Figure that chooses, higher is better."""
        return self.accuracy if self.balanced_accuracy is None else self.balanced_accuracy

    @property
    def words(self) -> str:
        """The accuracy, and beside it the figure that chooses if that is another: `91.20% (mean recall 88.10%)`."""
        recall = self.balanced_accuracy
        return f"{self.accuracy:.2%}" + ("" if recall is None else f" (mean recall {recall:.2%})")

    @model_serializer(mode="wrap")
    def _without_what_was_not_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(handler(self), "balanced_accuracy")


def metrics_of(pairs: Iterable[tuple[Tensor, Tensor]], *, balanced: bool = False) -> Metrics:
    """Metrics over (logits [B, K], targets [B]) pairs.

    Args:
        balanced: give the balanced accuracy too, to choose by it.
    """
    correct, loss, count = 0, 0.0, 0
    hits, counts = Counter[int](), Counter[int]()
    for logits, targets in pairs:
        right = logits.argmax(1) == targets
        correct += int(right.sum())
        loss += float(F.cross_entropy(logits.float(), targets, reduction="sum"))
        count += len(targets)
        if balanced:
            hits.update(targets[right].tolist())
            counts.update(targets.tolist())
    recall = sum(hits[k] / n for k, n in counts.items()) / len(counts) if balanced else None
    return Metrics(accuracy=correct / count, cross_entropy=loss / count, n=count, balanced_accuracy=recall)


def evaluate(
    network: nn.Module, split: ImageSplit, device: torch.device, batch_size: int = 512, *, balanced: bool = False
) -> Metrics:
    """Metrics of a network on a split, in evaluation mode; its own mode is restored afterwards."""
    with evaluating(network), torch.inference_mode():
        pairs = ((logits_at(network, b.inputs, b.rows), b.targets) for b in split.passes(batch_size, device))
        return metrics_of(pairs, balanced=balanced)


def right_answers(network: nn.Module, split: ImageSplit, device: torch.device, batch_size: int = 512) -> np.ndarray:
    """Mark the examples of a split that the network answers right, [N] bool, as `evaluate` counts them."""
    marked: np.ndarray = class_answers(network, split, device, batch_size) == split.targets.cpu().numpy()
    return marked


def class_answers(network: nn.Module, split: ImageSplit, device: torch.device, batch_size: int = 512) -> np.ndarray:
    """The network's answers on a split, [N], as numbers of classes."""
    with evaluating(network), torch.inference_mode():
        parts = [network(b.inputs).argmax(1) for b in split.batches(batch_size, device)]
    return torch.cat(parts).cpu().numpy()


def class_logits(network: nn.Module, split: ImageSplit, device: torch.device, batch_size: int = 512) -> np.ndarray:
    """The network's logits on a split, [N, K] float32."""
    with evaluating(network), torch.inference_mode():
        parts = [network(b.inputs).float() for b in split.batches(batch_size, device)]
    return torch.cat(parts).cpu().numpy()


def packed(right: np.ndarray) -> str:
    """Pack [N] bool as text, a bit an example."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, n: int) -> np.ndarray:
    """The [N] bool that were `packed`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=n).astype(bool)


def right_alone(one: str, other: str) -> tuple[int, int]:
    """Count the examples that only the first classifier answers right, and those of the second alone, both `packed`."""
    bits = [int.from_bytes(base64.b64decode(text)) for text in (one, other)]
    return (bits[0] & ~bits[1]).bit_count(), (bits[1] & ~bits[0]).bit_count()


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share of n (Wilson 1927); unlike the normal one it stays inside [0, 1]."""
    centre = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def paired_difference(lost: int, gained: int, n: int) -> tuple[float, float]:
    """The 95 % interval of the second accuracy minus the first, on the same n examples (Agresti and Min 2005).

    Args:
        lost: number of examples that only the first classifier gets right; gained: only the second.
    """
    lost_, gained_, n_ = lost + 0.5, gained + 0.5, n + 2
    difference = (gained_ - lost_) / n_
    half = _Z * math.sqrt(max(lost_ + gained_ - (gained_ - lost_) ** 2 / n_, 0.0)) / n_
    return max(-1.0, difference - half), min(1.0, difference + half)


def unpaired_difference(first: float, first_n: int, second: float, second_n: int) -> tuple[float, float]:
    """The 95 % interval of the second share minus the first, of two samples (Newcombe 1998, method 10).

    On the same examples it is wider than need be, as most answers of two classifiers agree.
    """
    (low, high), (low_, high_) = wilson(first, first_n), wilson(second, second_n)
    difference = second - first
    below = math.hypot(second - low_, high - first)
    above = math.hypot(high_ - second, first - low)
    return difference - below, difference + above


def tells_apart(lost: int, gained: int, comparisons: int = 1) -> bool:
    """True if two classifiers' accuracies on the same examples differ by more than chance, at a level of 5 %.

    McNemar's test (1947) in its exact form: if both are equally accurate, an example that one of them alone gets right
    is the first's with probability 1/2.

    Args:
        lost: number of examples that only the first classifier gets right; gained: only the second.
        comparisons: number of comparisons from which this one was picked for its outcome. They share the 5 %
            (Bonferroni).
    """
    apart = lost + gained
    tail = range(max(lost, gained), apart + 1)
    log_choices = (math.lgamma(apart + 1) - math.lgamma(k + 1) - math.lgamma(apart - k + 1) for k in tail)
    chance = sum(math.exp(log - apart * math.log(2)) for log in log_choices)
    return 2 * chance * comparisons <= 0.05
