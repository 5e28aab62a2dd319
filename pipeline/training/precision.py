"""Check that mixed precision makes training steps faster: a processor without its instructions takes longer."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.device import Compute
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.figures import milliseconds, times
from edgestill.pipeline.timing.timing import brief_medians_ms

_SLOWER = 1.05  # than fp32, to be refused


def require_fast_precision(network: nn.Module, batch: Batch, compute: Compute, device: torch.device) -> None:
    """Time steps of a network in the configured precision and in fp32, in turns; fp32 needs none.

    Raises:
        ConfigError: the precision's steps take longer; with both figures.
    """
    if compute.precision == "fp32":
        return
    network.to(device).train()
    both = {"fp32": replace(compute, precision="fp32"), compute.precision: compute}
    calls = {name: _step(network, batch, one, device) for name, one in both.items()}
    found = brief_medians_ms(calls)
    ours, plain = found[compute.precision], found["fp32"]
    if ours > _SLOWER * plain:
        raise ConfigError(
            [
                f"device.precision: a training step takes {milliseconds(ours)} in {compute.precision} and "
                f"{milliseconds(plain)} in fp32, {times(ours / plain)} as long, as where a processor has no "
                "instructions for it or a network is too small to gain; set device.precision=fp32"
            ]
        )


def _step(network: nn.Module, batch: Batch, compute: Compute, device: torch.device) -> Callable[[], None]:
    def run() -> None:
        network.zero_grad(set_to_none=True)
        with compute.autocast(device):
            loss = F.cross_entropy(network(batch.inputs).float(), batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run
