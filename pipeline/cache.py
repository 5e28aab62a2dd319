"""Where what is worth keeping between runs lies."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """EDGESTILL_CACHE, or edgestill below XDG_CACHE_HOME (~/.cache); nothing in it is missed when it is deleted."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EDGESTILL_CACHE") or Path(home) / "edgestill")
