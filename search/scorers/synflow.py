"""SynFlow score: flow of a network's output through its weights, after all of them are made positive."""

import copy
import math
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgestill.pipeline.networks.network import Initialisation, Normalize
from edgestill.search.scorers.base import Scorer, Student
from edgestill.search.scoring.observe import replaced_embedding


class Synflow(Scorer):
    """log sum |theta dR / dtheta| over convolution and linear weights, R the sum of the logits of an all-ones image.

    Tanaka, Kunin, Yamins and Ganguli 2020, arXiv:2006.05467, equation 1, as a score of networks by Abdelfattah,
    Mehrotra, Dudziak and Lane 2021, "Zero-Cost Proxies for Lightweight NAS", arXiv:2101.08134, whose convention
    (`synflow`, not `synflow_bn`) it follows: batch norm is the identity, weights are their absolute values, float64.
    The image does not go through `Normalize`, as it would become negative. Weights are drawn as for the other scores
    here; the cited convention keeps PyTorch's default. The logarithm keeps the order and a readable range.
    Layer norm is the identity too, and the embedding of token ids is all ones. Softmax and gates are not homogeneous,
    so with them the sum is no longer the same for every layer; it is used as it is.
    """

    name: ClassVar[str] = "synflow"
    initialisation: ClassVar[Initialisation | None] = "kaiming"

    def __call__(self, student: Student) -> float:
        assert student.network is not None
        inputs = self.context.batch.inputs
        flow = synaptic_flow(student.network, inputs.shape[1:], are_ids=not inputs.is_floating_point())
        return math.log(flow) if flow > 0 else -math.inf


def synaptic_flow(network: nn.Module, input_shape: torch.Size, *, are_ids: bool = False) -> float:
    """Return the sum of |theta dR / dtheta|, computed on a copy of the network."""
    positive = copy.deepcopy(network).double().requires_grad_(True)
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    layers = []
    for module in positive.modules():
        if isinstance(module, _BatchNorm | nn.LayerNorm | Normalize):
            module.forward = _identity  # type: ignore[method-assign]
        elif isinstance(module, nn.Conv2d | nn.Linear):
            layers.append(module.weight)
    ones = torch.ones(1, *input_shape, dtype=torch.int64 if are_ids else torch.float64, device=layers[0].device)
    with replaced_embedding(positive, torch.ones_like, []) if are_ids else nullcontext():
        gradients = torch.autograd.grad(positive(ones).sum(), layers, allow_unused=True)
    pairs = zip(layers, gradients, strict=True)  # None: a weight on an edge that leads nowhere
    return sum(float((weight.detach() * slope).abs().sum()) for weight, slope in pairs if slope is not None)


def _identity(inputs: Tensor) -> Tensor:
    return inputs
