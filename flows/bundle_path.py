"""Find the bundle meant by a user's path or name."""

from pathlib import Path

from edgestill.pipeline.errors import ConfigError, RunDirError, command
from edgestill.pipeline.runs.manifest import require_own_files
from edgestill.pipeline.runs.rundir import find_run

RUNS = Path("runs")  # default folder of `run` for its runs


def find_bundle(given: Path) -> Path:
    """Return a bundle's folder or zip as given, or the bundle of a run: its folder, name below `runs`, or `latest`.

    Raises:
        ConfigError: there is neither a bundle nor a run.
        RunDirError: the run has no bundle.
    """
    if given.exists() and not is_run(given):
        return given
    try:
        run = find_run(str(given), RUNS)
    except RunDirError as error:
        raise ConfigError([f"there is no bundle at {given}, and {error}"]) from None
    require_own_files(run, held=False)
    bundle = run / "bundle"
    if not (bundle / "bundle.json").is_file():
        raise RunDirError(f"{run} has no bundle: it is not finished ({command('resume', run)}), or it was moved away")
    return bundle


def is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and not (path / "bundle.json").is_file()


def require_outside_bundles(out: Path) -> None:
    """Refuse to write a file among a bundle's own: `verify` would then call the bundle altered.

    Raises:
        ConfigError: the file would lie in a bundle's folder.
    """
    folder = out.absolute().parent
    if is_bundle(folder):
        raise ConfigError(
            [f"--out {out} lies among the files of a bundle, which must stay as it is; name one elsewhere"]
        )


def is_bundle(folder: Path) -> bool:
    return (folder / "bundle.json").is_file() and (folder / "manifest.json").is_file()
