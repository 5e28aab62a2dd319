"""Batch norm whose statistics are of a batch that is spread over processes.

torch's SyncBatchNorm computes the same, on GPUs alone.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def shared_norms(network: nn.Module) -> Iterator[None]:
    """Let every batch norm in training mode take its statistics over all processes within."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and _is_of_batch(module)]
    for norm in norms:
        norm.__dict__["forward"] = functools.partial(_normalised, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.__dict__["forward"]


def _is_of_batch(norm: _BatchNorm) -> bool:
    return norm.training or norm.running_mean is None


def _normalised(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    """Normalise by the mean and the variance of the whole batch, [B, C, ...], and keep running ones as torch does."""
    dims = [dim for dim in range(inputs.dim()) if dim != 1]
    shape = [1, -1] + [1] * (inputs.dim() - 2)
    values = inputs.float()
    count = _total(torch.tensor([float(inputs.numel() // inputs.shape[1])], device=inputs.device))
    mean = _total(values.sum(dims)) / count
    centred = values - mean.view(shape)
    variance = _total(centred.square().sum(dims)) / count
    _keep(norm, mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
    found = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        found = found * norm.weight.view(shape) + norm.bias.view(shape)
    return found.to(inputs.dtype)


@torch.no_grad()
def _keep(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


def _total(values: Tensor) -> Tensor:
    summed: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return summed


class _Total(torch.autograd.Function):
    """Sum over all processes; the gradient of a share is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
