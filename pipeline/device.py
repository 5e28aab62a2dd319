"""Where tensors live, how many threads compute, and what the machine is called in a report."""

import os
import platform
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


def describe_machine() -> dict[str, str | int]:
    """What a figure measured here must be quoted with."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a device, not a file of ours
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"
