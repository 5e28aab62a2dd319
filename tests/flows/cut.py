"""A finished run as it was before one of its stages."""

import json
import shutil
from pathlib import Path
from typing import Any

from edgestill.flows.chain import STAGES
from edgestill.flows.stages.stage import Stage

# Keys of results that the clock decides.
CLOCK = {
    "seconds", "ms_an_example", "latency", "speedups", "verdicts", "over_budget", "load_before", "digest",
}  # fmt: skip


def before(whole: Path, stage: Stage[Any], folder: Path) -> Path:
    """Copy a run into a folder, without what the stage and the later ones left there."""
    root = Path(shutil.copytree(whole, folder / whole.name))
    manifest = json.loads((root / "manifest.json").read_text())
    for later in STAGES[STAGES.index(stage) :]:
        manifest["stages"].pop(later.name, None)
        for left in filter(None, (later.name, later.beside)):
            shutil.rmtree(root / left, ignore_errors=True)
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


def timeless(value: Any) -> Any:
    """A result without what the clock decides."""
    if isinstance(value, dict):
        return {name: timeless(part) for name, part in value.items() if name not in CLOCK}
    return [timeless(part) for part in value] if isinstance(value, (list, tuple)) else value
