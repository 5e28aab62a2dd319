"""Which bundle a person means."""

from pathlib import Path

from pipeline.errors import ConfigError, RunDirError, command
from pipeline.rundir import find_run

RUNS = Path("runs")  # where `run` puts runs by default


def find_bundle(given: Path) -> Path:
    """A bundle's folder or zip as it is; of a run (its folder, its name below `runs`, or `latest`), its bundle.

    Raises:
        ConfigError: there is neither.
        RunDirError: the run has no bundle.
    """
    if given.exists() and not is_run(given):
        return given
    try:
        run = find_run(str(given), RUNS)
    except RunDirError as error:
        raise ConfigError([f"there is no bundle at {given}, and {error}"]) from None
    bundle = run / "bundle"
    if not (bundle / "bundle.json").is_file():
        raise RunDirError(f"{run} has no bundle: it is not finished ({command('resume', run)}), or it was moved away")
    return bundle


def is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and not (path / "bundle.json").is_file()


def require_outside_bundles(out: Path) -> None:
    """Refuse a file that would lie among a bundle's own, which `verify` would then call altered.

    Raises:
        ConfigError: it would.
    """
    folder = out.absolute().parent
    if is_bundle(folder):
        raise ConfigError(
            [f"--out {out} lies among the files of a bundle, which must stay as it is; name one elsewhere"]
        )


def is_bundle(folder: Path) -> bool:
    return (folder / "bundle.json").is_file() and (folder / "manifest.json").is_file()
