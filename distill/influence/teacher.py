"""Training a teacher on with weighted labels."""

# N training examples

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data import UNLABELLED, Batch, ImageSplit
from pipeline.teacher import frozen
from pipeline.training import Supervised, TrainingConfig, fit


class WeightedLabels(Supervised):
    """sum_i w_i CE_i over the labelled examples of a batch, divided by their number."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight  # [N]

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        losses = F.cross_entropy(network(batch.inputs), batch.targets, reduction="none")
        labelled = (batch.targets != UNLABELLED).sum().clamp(min=1)
        return {"cross_entropy": (self._weight[batch.index] * losses).sum() / labelled}


def train_weighted(
    teacher: nn.Module,
    train: ImageSplit,
    reference: ImageSplit,
    weight: Tensor,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
) -> None:
    """Train in place and leave the teacher frozen, at its best epoch on the reference split."""
    with torch.random.fork_rng(devices=[]):
        teacher.requires_grad_(True)
        fit(teacher, WeightedLabels(weight), train, reference, config, seed=seed, device=device)
    frozen(teacher)
