"""The runs below a folder, and one of them by its name."""

from pathlib import Path

from edgestill.pipeline.errors import RunDirError, nearest
from edgestill.pipeline.runs.manifest import MANIFEST


def find_run(name: str, parent: Path) -> Path:
    """Find a run by its path, its folder's name below `parent`, or `latest`.

    Raises:
        RunDirError: there is no such run.
    """
    known = list_runs(parent)
    if name == "latest" and known:
        return known[-1]
    for path in (Path(name), parent / name):
        if (path / MANIFEST).is_file():
            return path
    names = [path.name for path in known]
    hint = nearest(Path(name).name, names) if names else f"there are no runs in {parent}"
    raise RunDirError(f"no run at {name!r}; {hint}")


def list_runs(parent: Path) -> list[Path]:
    """List the runs below a folder, oldest first; a bundle moved there is not one.

    Raises:
        RunDirError: it is no folder.
    """
    if not parent.is_dir():
        if parent.exists():
            raise RunDirError(f"{parent} is no folder; --out takes the folder of the runs")
        return []
    found = sorted(path.parent for path in parent.glob(f"*/{MANIFEST}"))
    return [path for path in found if not (path / "bundle.json").is_file()]
