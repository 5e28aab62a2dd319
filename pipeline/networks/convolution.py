"""Guard against a fault of oneDNN: the weight gradient of a strided 1x1 convolution of few channels.

For that gradient oneDNN copies the pixels that the strides keep into a workspace of `pixels x channels` per thread. It
writes each pixel at `pixel x block`, where a block is 8 channels with AVX2 and 16 with AVX-512. With fewer channels
than a block it writes past the workspace: one thread corrupts the heap, several spoil each other's gradients. Only
inputs in channels-last layout are affected. (https://github.com/uxlfoundation/oneDNN/issues/6035, open; seen in 3.12
and 3.13.3, of torch 2.13 and 2.15.)

A convolution of stride 1 over the pixels that the strides keep is the same function, so `guard` computes its gradient
instead, wherever in a network the convolution is. That costs at most 2 % of a step of a small ResNet; contiguous inputs
would cost 23 to 26 % (benchmarks/convolutions.py). A check in a child process, once for each pair of torch and
processor, finds out if the guard is needed; if not, oneDNN computes the gradient as usual.
"""

# N batch, C channels, H W height and width, O output channels

import contextlib
import functools
import os
import platform
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.child import ROOT, environment, interpreter
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.runs.checkpoint import write_atomic

NARROW = 16  # channels of the widest block; fewer input channels may be affected
_OPERATOR = "convolution_backward"
_TOLERANCE = 1e-3  # of the largest gradient; float32 rounding is below 1e-5, the fault above 1e-2
_CHECK_SECONDS = 60
_RIGHT, _WRONG = 10, 11  # exit codes that no interpreter ends with by itself
# With these, glibc checks the heap at each free, and ends the process if something wrote past its buffer.
_HEAP_CHECKS = {"MALLOC_CHECK_": "3", "LD_PRELOAD": "libc_malloc_debug.so.0"}
_library: torch.library.Library | None = None


def guard() -> None:
    """Replace the CPU gradient of narrow strided 1x1 convolutions, in this process from now on, where it is faulty."""
    global _library
    if _library is not None or _recorded() is False:
        return
    computed = torch.library.get_kernel(f"aten::{_OPERATOR}", "CPU")

    def backward(keys: Any, gradient: Tensor, inputs: Tensor, weight: Tensor, *rest: Any) -> Any:
        _, stride, padding, _, transposed, *_ = rest
        if is_concerned(weight.shape, stride, padding, transposed) and is_faulty():
            return _over_what_is_left(computed, keys, gradient, inputs, weight, rest)
        return computed.call_boxed(keys, gradient, inputs, weight, *rest)

    _library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():  # torch warns that the operator has a kernel already: `computed`
        warnings.simplefilter("ignore")
        _library.impl(_OPERATOR, backward, "CPU", with_keyset=True)  # type: ignore[no-untyped-call]


def is_concerned(weight: Sequence[int], stride: Sequence[int], padding: Sequence[int], transposed: bool) -> bool:
    """True if a convolution with weights of shape `weight` [O, C, ...] is 1x1, narrow, strided and without padding."""
    if transposed or weight[1] >= NARROW or not any(step > 1 for step in stride):
        return False
    return all(side == 1 for side in weight[2:]) and not any(padding)


@functools.cache
def is_faulty() -> bool:
    """True if this processor with this torch needs the guard; a child process finds out, once for each such pair."""
    known = _recorded()
    if known is None:
        known = _found_faulty()
        with contextlib.suppress(OSError):
            write_atomic(_record(), str(known).encode())
    return known


def wrong_gradients(threads: Sequence[int] = (1, 2)) -> list[tuple[int, int, int, float]]:
    """List (threads, C, O, relative error) of each weight gradient by torch that differs with the inputs' layout."""
    found = []
    generator = torch.Generator().manual_seed(0)
    for count in threads:
        torch.set_num_threads(count)
        for channels in (3, 4, 6, 9, 12, 15):
            for outputs in (8, 16):
                weight = torch.randn(outputs, channels, 1, 1, generator=generator)
                inputs = torch.randn(32, channels, 16, 16, generator=generator)
                gradient = torch.randn(32, outputs, 8, 8, generator=generator)
                expected = _weight_gradient(weight, inputs, gradient, torch.contiguous_format)
                strided = _weight_gradient(weight, inputs, gradient, torch.channels_last)
                error = float((strided - expected).abs().max() / expected.abs().max())
                if not error <= _TOLERANCE:
                    found.append((count, channels, outputs, error))
    return found


def _over_what_is_left(
    computed: Any, keys: Any, gradient: Tensor, inputs: Tensor, weight: Tensor, rest: Sequence[Any]
) -> tuple[Tensor | None, ...]:
    biases, stride, padding, dilation, transposed, output_padding, groups, wanted = rest
    sides = inputs.dim() - 2
    steps = tuple(stride) * (sides // len(stride))
    left = (slice(None), slice(None), *(slice(None, None, step) for step in steps))
    settings = biases, [1] * sides, padding, dilation, transposed, output_padding, groups, wanted
    into_inputs, into_weight, into_bias = computed.call_boxed(keys, gradient, inputs[left], weight, *settings)
    if wanted[0]:
        spread = torch.zeros_like(inputs)
        spread[left] = into_inputs
        into_inputs = spread
    return into_inputs, into_weight, into_bias


def _found_faulty() -> bool:
    """True if a child process, which has no guard, computes a wrong gradient, dies of it, or hangs."""
    check = f"import sys; sys.path.append(sys.argv[1]); import {__name__} as c; sys.exit(c.exit_code())"
    command = interpreter("-c", check, ROOT)
    try:
        done = subprocess.run(command, env=environment(_HEAP_CHECKS), capture_output=True, timeout=_CHECK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode != _RIGHT


def exit_code() -> int:
    """Exit code of the child process of `is_faulty`."""
    return _WRONG if wrong_gradients() else _RIGHT


def _weight_gradient(weight: Tensor, inputs: Tensor, gradient: Tensor, layout: torch.memory_format) -> Tensor:
    own = weight.clone().requires_grad_()
    output = F.conv2d(inputs.contiguous(memory_format=layout), own, stride=2)
    (found,) = torch.autograd.grad(output, own, gradient.contiguous(memory_format=layout))
    return found


def _recorded() -> bool | None:
    """Recorded outcome of the check for this torch and processor; None where there is none."""
    with contextlib.suppress(OSError):
        return {"True": True, "False": False}.get(_record().read_text(encoding="utf-8"))
    return None


def _record() -> Path:
    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")]
    here = digest(torch.__version__, torch.backends.cpu.get_cpu_capability(), _processor(), *limits)
    return cache_folder() / "convolution" / here


def _processor() -> str:
    """Name and features of the processor, as Linux reports them; elsewhere its name or architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return "".join(next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags"))
