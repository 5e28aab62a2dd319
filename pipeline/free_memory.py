"""The machine's free memory, compared with the declared size of a file before it is read."""

import os
from pathlib import Path

from edgestill.pipeline.errors import DataError

# A container's limit, its use, and the line of memory.stat with the files among it that can be dropped.
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


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


def _of_the_machine() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
