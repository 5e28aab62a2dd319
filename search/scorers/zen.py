"""Zen-score: distance moved by a random network's features when its input moves a little."""

# B batch, C channels, H W height and width

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import Initialisation, PooledClassifier
from edgestill.search.scorers.base import Scorer, Student

ALPHA = 1e-2  # size of the perturbation; the official code's


class Zen(Scorer):
    """log E||f(x) - f(x + alpha e)||_F + sum over batch norms of log sigma, sigma^2 the mean of their variances.

    Lin et al. 2021, "Zen-NAS: A Zero-Shot NAS for High-Performance Deep Image Recognition", arXiv:2102.01063,
    Algorithm 1: f gives the features before pooling, x and e are N(0, 1), weights too. The variances are those of
    the pass itself, where the official code reads running averages of two passes; its norm is the sum of absolute
    values. Residual links stay: the paper takes them out, but not every space can. NaN for a network without batch
    norm, since the score would say nothing about its size, and for one without image inputs.
    """

    name: ClassVar[str] = "zen"
    initialisation: ClassVar[Initialisation | None] = "gaussian"

    def __call__(self, student: Student) -> float:
        network, shape = student.network, self.context.batch.inputs.shape
        if not isinstance(network, PooledClassifier) or len(shape) != 4:
            return math.nan
        generator = torch.Generator().manual_seed(derive_seed(student.seed, self.name))
        x, e = (torch.randn(shape, generator=generator).to(self.context.batch.inputs.device) for _ in range(2))
        variances: list[Tensor] = []
        with torch.no_grad():
            with _recorded(network.train(), variances):
                features = network.trunk(x)
            moved = network.trunk(x + ALPHA * e) - features
        distance = float(moved.flatten(1).double().norm(dim=1).mean())
        if not variances or distance == 0:
            return math.nan
        return math.log(distance) + sum(0.5 * math.log(max(float(v.mean()), 1e-300)) for v in variances)


@contextmanager
def _recorded(network: nn.Module, variances: list[Tensor]) -> Iterator[None]:
    """Record the variance [C] of each batch norm's input."""

    def record(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        variances.append(given[0].double().var((0, 2, 3), correction=0))

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(record) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
