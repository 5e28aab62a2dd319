"""ZiCo score: steadiness of a random network's weight gradients from batch to batch."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.networks.network import Initialisation, look
from edgestill.search.scorers.base import Scorer, Student

BATCHES = 2  # the official code's


class Zico(Scorer):
    """Sum over layers of log sum_w E|g_w| / std(g_w), g the gradient of the cross-entropy by a weight, over batches.

    Li, Yang, Bhardwaj and Marculescu 2023, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients",
    arXiv:2301.11300. Layers are convolutions and linear layers; weights with constant gradients are left out, as in
    the official code. The two batches are the halves of the search's one batch.
    """

    name: ClassVar[str] = "zico"
    initialisation: ClassVar[Initialisation | None] = "kaiming"

    def __call__(self, student: Student) -> float:
        assert student.network is not None
        network, batch = student.network.train(), self.context.batch
        layers = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        taken = []
        for inputs, targets in zip(batch.inputs.chunk(BATCHES), batch.targets.chunk(BATCHES), strict=True):
            loss = F.cross_entropy(look(network, inputs).logits, targets)
            taken.append(torch.autograd.grad(loss, layers, allow_unused=True))
        steadiness = (_steadiness(gradients) for gradients in zip(*taken, strict=True))
        return sum(math.log(value) for value in steadiness if value > 0)


def _steadiness(gradients: tuple[Tensor | None, ...]) -> float:
    """sum_w E|g_w| / std(g_w) of one layer; 0 for a layer on an edge that leads nowhere."""
    found = [gradient.flatten() for gradient in gradients if gradient is not None]
    if not found:
        return 0.0
    stacked = torch.stack(found)
    std = stacked.std(0, correction=0)
    return float((stacked.abs().mean(0)[std > 0] / std[std > 0]).double().sum())
