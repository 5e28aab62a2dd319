"""Where tensors live and how many threads compute."""

from typing import Literal

import torch
from pydantic import Field

from pipeline.errors import UserError
from pipeline.frozen import Frozen


class DeviceConfig(Frozen):
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    threads: int = Field(
        0, ge=0, le=1024, description="of torch on the CPU; 0 leaves its choice, 1 repeats bit for bit"
    )


def select_device(config: DeviceConfig) -> torch.device:
    """The device to compute on; sets torch's thread count as a side effect.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("device.accelerator is 'cuda', but torch sees no CUDA device; use 'auto' or 'cpu'")
    use_cuda = config.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")
