"""Forks of a process: where they are possible, and what keeps one from hanging or from outliving its parent."""

import contextlib
import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

_WATCH_S = 0.5  # how long a forked process may outlive its parent


def can_fork() -> bool:
    """True if a fork of this process can compute: the system's libraries survive a fork, and no GPU is in use."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    """Keep the garbage collector from running, here and in a process forked within."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def processor_ticks(pid: int) -> int:
    """Processor time of a process in ticks of the clock (Linux: fields utime and stime of proc(5)'s stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0
    return int(fields[11]) + int(fields[12])


def end_with(parent: int) -> None:
    """End this forked process with its parent.

    The connection does not close when the parent ends, since this process has a copy of the other end.
    """
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(0)
