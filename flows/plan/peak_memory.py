"""Peak of this process's memory over a stretch of work; None where the system does not tell it."""

import contextlib
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def begin_peak() -> None:
    """Set the peak back to the memory in use now."""
    with contextlib.suppress(OSError):
        _RESET.write_text("5", encoding="ascii")  # proc(5)


def peak_bytes() -> int | None:
    """Return the peak since `begin_peak`."""
    try:
        lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
