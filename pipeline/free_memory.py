"""The machine's free memory, compared with a file's declared size before it is read, and memory that torch frees."""

import ctypes
import os
import sys
from pathlib import Path

from edgestill.pipeline.errors import DataError

# A container's limit, its use, and the line of memory.stat with the files among it that can be dropped.
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 1 << 30


def available_bytes() -> int | None:
    """Bytes of memory that this process may still take; None where the system does not say."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        found = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return _of_the_machine()
    for folder, limit, use, droppable in _GROUPS:
        try:
            most, taken = (int((Path(folder) / name).read_text(encoding="utf-8")) for name in (limit, use))
            lines = (Path(folder) / "memory.stat").read_text(encoding="utf-8").splitlines()
            kept = taken - int(dict(line.split(" ", 1) for line in lines)[droppable])
        except (OSError, ValueError, KeyError):  # no such group, or `max`
            continue
        found = min(found, max(0, most - kept))
    return found


def require_memory(size: int, what: str) -> None:
    """Refuse to read data that would take more memory than is free.

    Args:
        size: bytes of memory that reading takes.
        what: name of the data, the subject of the error's sentence.

    Raises:
        DataError: less memory is free.
    """
    available = available_bytes()
    if available is not None and size > available:
        raise DataError(
            f"{what} needs {_gb(size)} of memory, and {_gb(available)} is free here; use less, or free some"
        )


def keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB of what torch frees, as torch frees and allocates tensors of the same few sizes.

    By default memory of such sizes goes back to the system and is faulted in again page by page. Processes of a machine
    wait for each other meanwhile (benchmarks/score.py times two). With another C library nothing happens.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
                mallopt(parameter, _KEPT_BYTES)


def _of_the_machine() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
