"""What is worth keeping between runs, in the user's cache folder: a search's calibration, named by content."""

import contextlib
from collections.abc import Callable

from pydantic import ValidationError

from pipeline.cache import cache_folder
from pipeline.errors import RunDirError
from pipeline.sealed import read_sealed, write_sealed
from search.scorers import Calibration


def kept_calibration(key: str, compute: Callable[[], Calibration]) -> Calibration:
    """A calibration that an earlier search computed from the same content, or a new one, which is kept.

    A file that is another's, or cannot be read or written, costs time only.
    """
    path = cache_folder() / "calibration" / f"{key}.json"
    with contextlib.suppress(OSError, ValidationError, RunDirError):
        kept = read_sealed(path, key)
        if kept is not None:
            return Calibration.model_validate_json(kept)
    found = compute()
    with contextlib.suppress(OSError):
        write_sealed(path, found.model_dump_json().encode(), key)
    return found
