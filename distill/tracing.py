"""Networks of feature maps as torch.fx reads them, for what changes their layers."""

import copy

import torch
from torch import Tensor, fx, nn

from pipeline.errors import FailedError, first_line
from pipeline.network import look


def traceable(network: nn.Module, inputs: Tensor) -> nn.Module | None:
    """A copy on the CPU in evaluation mode whose pooling has no branch, which torch.fx cannot follow.

    Args:
        inputs: [B, C, H, W] examples.

    Returns:
        None: the network has no feature maps [B, C, H, W], as a transformer has none.
    """
    made = copy.deepcopy(network).cpu().eval()
    with torch.no_grad():
        features = look(made, inputs.cpu()).features
    if features.dim() != 4:
        return None
    made.pool = _mean_of_maps  # type: ignore[assignment]
    return made


def traced(network: nn.Module, failure: type[FailedError]) -> fx.GraphModule:
    """The graph of the network's layers.

    Raises:
        failure: torch.fx cannot follow it.
    """
    try:
        return fx.symbolic_trace(network)
    except Exception as error:  # whatever the network's own code does with a proxy
        raise failure(f"the student cannot be traced: {first_line(error)}") from error


def _mean_of_maps(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3))
