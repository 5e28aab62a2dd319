"""Further training of a teacher, with weighted labels."""

# N training examples

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised


class WeightedLabels(Supervised):
    """Objective sum_i w_i CE_i over the labelled examples of a batch, divided by their number."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight  # [N]
        self.last: dict[str, Tensor] = {}  # the network's state after the last epoch

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        losses = F.cross_entropy(network(batch.inputs), batch.targets, reduction="none")
        labelled = (batch.targets != UNLABELLED).sum().clamp(min=1)
        return {"cross_entropy": (self._weight[batch.index] * losses).sum() / labelled}

    def end_epoch(self, epoch: int, network: nn.Module) -> None:
        self.last = copy.deepcopy(network.state_dict())


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
    """Train the teacher in place and leave it frozen, at its last epoch.

    The reference split does not choose an epoch, as the weights were fitted to it. It only shows if training diverged.
    """
    objective = WeightedLabels(weight)
    teacher.requires_grad_(True)
    fit(teacher, objective, train, reference, config, seed=seed, device=device)
    teacher.load_state_dict(objective.last)
    frozen(teacher)
