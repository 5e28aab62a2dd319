"""What a classifier is judged by."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data import ImageSplit
from pipeline.frozen import Frozen


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
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            return metrics_of((network(b.inputs), b.targets) for b in split.batches(batch_size, device))
    finally:
        network.train(was_training)
