"""Views and gradients in the form that the equation's terms need."""

# P parameters, all of them one after the other

import torch
from torch import Tensor, nn

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View


def nothing(batch: Batch) -> View:
    """View of a teacher that nobody reads."""
    return View(*(torch.empty(0, device=batch.inputs.device),) * 3)


def detached(view: View) -> View:
    return View(*(part.detach() for part in view))


def flat_gradient(term: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """Gradient of one term over all parameters, [P]; 0 where it does not reach."""
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def put(gradient: Tensor, parameters: list[nn.Parameter]) -> None:
    """Give each parameter its part of a gradient [P]."""
    parts = torch.split(gradient, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def in_float32(view: View) -> View:
    return View(*(part.float() for part in view))
