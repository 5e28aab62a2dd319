"""Where tensors live and how many threads compute."""

import ctypes
import sys
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


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB of what torch frees, as torch frees and allocates tensors of the same few sizes.

    By default memory of such sizes goes back to the system and is faulted in again page by page: a fifth of the time of
    scoring a NAS-Bench-201 cell, in which the processes of a machine wait for each other. Where the C library is not
    glibc nothing happens.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
                mallopt(parameter, _KEPT_BYTES)


def select_device(config: DeviceConfig) -> torch.device:
    """The device to compute on; sets torch's thread count, and what the allocator keeps, as a side effect.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("device.accelerator is 'cuda', but torch sees no CUDA device; use 'auto' or 'cpu'")
    use_cuda = config.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")
