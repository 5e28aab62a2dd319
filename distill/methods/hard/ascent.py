"""Optimizer of phi, an augmentor's parameters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_EPS = 1e-12


class CommonAdam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) with one second moment, and so one step size, for all of phi.

    With a step size for each parameter, all ranges widen at one pace in exploring and narrow at one pace in repair,
    harmless ones too. With a common step size the range to blame narrows most.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float, betas: tuple[float, float] = (0.9, 0.999)):
        self._parameters, self._rate, self._betas = list(parameters), rate, betas
        size = sum(parameter.numel() for parameter in self._parameters)
        self._mean, self._square = self._parameters[0].new_zeros(size), self._parameters[0].new_zeros(())
        self._count = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Descend by one step, in place."""
        flat, (first, second) = torch.cat([gradient.flatten() for gradient in gradients]), self._betas
        self._count += 1
        self._mean = first * self._mean + (1 - first) * flat
        self._square = second * self._square + (1 - second) * flat.square().mean()
        size = (self._square / (1 - second**self._count)).sqrt() + _EPS
        steps = self._rate / (1 - first**self._count) * self._mean / size
        sizes = [parameter.numel() for parameter in self._parameters]
        for parameter, step in zip(self._parameters, torch.split(steps, sizes), strict=True):
            parameter.sub_(step.view_as(parameter))

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean.clone(), "square": self._square.clone(), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean, self._square = (state[name].to(self._mean.device, copy=True) for name in ("mean", "square"))
        self._count = state["count"]
