"""The folder for files worth keeping between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return EDGESTILL_CACHE, or `edgestill` below XDG_CACHE_HOME (~/.cache). Its contents can be deleted safely."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EDGESTILL_CACHE") or Path(home) / "edgestill")
