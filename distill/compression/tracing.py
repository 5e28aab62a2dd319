"""Tracing of networks of feature maps with torch.fx, for pruning and fake quantisation."""

import copy

import torch
from torch import Tensor, fx, nn

from edgestill.pipeline.errors import FailedError, first_line
from edgestill.pipeline.networks.network import look


def traceable(network: nn.Module, inputs: Tensor) -> nn.Module | None:
    """Copy the network to the CPU, in evaluation mode, its pooling free of branches: torch.fx cannot follow them.

    Args:
        inputs: [B, C, H, W] examples.

    Returns:
        The copy, or None if the network has no feature maps [B, C, H, W], such as a transformer.
    """
    made = copy.deepcopy(network).cpu().eval()
    with torch.no_grad():
        features = look(made, inputs.cpu()).features
    if features.dim() != 4:
        return None
    made.pool = _mean_of_maps  # type: ignore[assignment]
    return made


def traced(network: nn.Module, failure: type[FailedError]) -> fx.GraphModule:
    """Return the graph of the network's layers.

    Raises:
        failure: torch.fx cannot follow the network.
    """
    try:
        return fx.symbolic_trace(network)
    except Exception as error:  # the network's own code may raise anything on a proxy
        raise failure(f"the student cannot be traced: {first_line(error)}") from error


def _mean_of_maps(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3))
