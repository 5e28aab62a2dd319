"""The estimate of one stage."""

from typing import NamedTuple


class Estimate(NamedTuple):
    seconds: float | None  # None: nothing was measured for the stage
    disk_bytes: int = 0  # files that it leaves in the run's folder
    note: str = ""
