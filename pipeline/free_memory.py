"""How much memory there is for what a file says that it holds."""

import os
from pathlib import Path

from pipeline.errors import DataError

_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def available_bytes() -> int | None:
    """Memory that this process may still take; None where the system does not say."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        found = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return _of_the_machine()
    for path in _GROUPS:
        try:
            found = min(found, int(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # no such group, or `max`
            continue
    return found


def require_memory(size: int, what: str) -> None:
    """Refuse to read what would take more memory than there is.

    Args:
        size: that it takes, in bytes.
        what: it is, with a verb to follow.

    Raises:
        DataError: it would.
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
