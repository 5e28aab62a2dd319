"""What KD-AIF's influence is measured against: weights of who knows the flips, and of who drops large losses."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.distill.methods.base import Context
from edgestill.distill.methods.kd_aif.method import KDAIF, KDAIFConfig
from edgestill.distill.methods.kd_aif.weighing import Weighing


class Oracle(KDAIF):
    """Weights 0 for flips and equal elsewhere, from the first epoch."""

    def __init__(self, config: KDAIFConfig, flipped: Tensor) -> None:
        super().__init__(config)
        self._flipped = flipped

    def prepare(self, context: Context) -> None:
        super().prepare(context)
        self._student.weight = (~self._flipped).float() / (~self._flipped).float().mean()

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        pass


class SmallLoss(KDAIF):
    """Drops the examples of the largest cross-entropy after the warm-up, as many as are flipped."""

    def __init__(self, config: KDAIFConfig, flipped: Tensor) -> None:
        super().__init__(config)
        self._count = int(flipped.sum())

    def _update(self, weighing: Weighing, network: nn.Module, deployable: nn.Module) -> None:
        network.eval()
        with torch.no_grad():
            batches = self._context.train.batches(512)
            losses = torch.cat([F.cross_entropy(network(b.inputs), b.targets, reduction="none") for b in batches])
        network.train()
        kept = torch.ones_like(losses)
        kept[losses.argsort(descending=True)[: self._count]] = 0
        weighing.influence, weighing.weight, weighing.updates = losses, kept / kept.mean(), 1
