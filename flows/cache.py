"""What is worth keeping between runs, in the user's cache folder: a search's calibration, named by content."""

import contextlib
from collections.abc import Callable

from pydantic import ValidationError

from pipeline.cache import cache_folder
from pipeline.checkpoint import write_atomic
from search.scorers import Calibration


def kept_calibration(key: str, compute: Callable[[], Calibration]) -> Calibration:
    """A calibration that an earlier search computed from the same content, or a new one, which is kept.

    A file that cannot be read or written costs time only.
    """
    path = cache_folder() / "calibration" / f"{key}.json"
    with contextlib.suppress(OSError, ValidationError):
        return Calibration.model_validate_json(path.read_bytes())
    found = compute()
    with contextlib.suppress(OSError):
        write_atomic(path, found.model_dump_json().encode())
    return found
