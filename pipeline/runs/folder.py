"""The folder of a run: made under an unused name, checked to hold its own files, and held by one process."""

from pathlib import Path

from filelock import FileLock, Timeout

from edgestill.pipeline.errors import RunDirError, command
from edgestill.pipeline.runs.manifest import MANIFEST, read_run_manifest, require_own_files


def unused_folder(parent: Path, name: str) -> Path:
    """Make a new folder below `parent`: of this name, or with a number behind it if there is one.

    Raises:
        RunDirError: there are a thousand of that name.
    """
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        root = parent / (name + suffix)
        try:
            root.mkdir(parents=True)
        except FileExistsError:
            continue
        return root
    raise RunDirError(f"{parent} already holds a thousand runs called {name}; give another --out")


def own_folder(root: Path, held: bool) -> Path:
    """Check a run's folder, which may have come from elsewhere, and return it.

    Args:
        held: the run is to be written.

    Raises:
        RunDirError: there is no run, or it holds a link, a pipe or a device.
    """
    if (root / MANIFEST).is_file():
        require_own_files(root, held)
    read_run_manifest(root)
    return root


def acquire(root: Path) -> FileLock:
    """Hold a run for this process, until the lock is released or the process dies.

    Raises:
        RunDirError: another process holds it.
    """
    lock = FileLock(root / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunDirError(
            f"{root} is held by another edgestill process; wait for it, or stop it and run {command('resume', root)}"
        ) from error
    return lock
