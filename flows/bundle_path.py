"""Find the bundle meant by a user's path or name."""

import contextlib
from pathlib import Path

from edgestill.pipeline.errors import ConfigError, RunDirError, command
from edgestill.pipeline.runs.find import find_run, list_runs
from edgestill.pipeline.runs.manifest import read_run_manifest, require_own_files

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
        latest = " (`latest` is the last run that was started)" if str(given) == "latest" else ""
        raise RunDirError(f"{run}{latest} has no bundle: {_state(run)}{_last_with_a_bundle(run)}")
    return bundle


def _state(run: Path) -> str:
    """Tell how far a run without a bundle is, and how it goes on."""
    done: list[str] = []
    with contextlib.suppress(RunDirError):
        done = list(read_run_manifest(run).stages)
    if "report" in done:
        return "it was moved away"
    after = f" beyond {done[-1]}" if done else ""
    return f"it is not finished{after}; {command('show', run)} tells its state, {command('resume', run)} goes on"


def _last_with_a_bundle(run: Path) -> str:
    others = [other for other in list_runs(run.parent) if other != run and (other / "bundle" / "bundle.json").is_file()]
    return f"; the last run that has one is {others[-1]}" if others else ""


def is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and not (path / "bundle.json").is_file()


def require_outside_bundles(out: Path, option: str = "--out") -> None:
    """Refuse to write a file among a bundle's own: `verify` would then call the bundle altered.

    Raises:
        ConfigError: the file would lie in a bundle's folder.
    """
    folder = out.absolute().parent
    if is_bundle(folder):
        raise ConfigError(
            [f"{option} {out} lies among the files of a bundle, which must stay as it is; name one elsewhere"]
        )


def is_bundle(folder: Path) -> bool:
    return (folder / "bundle.json").is_file() and (folder / "manifest.json").is_file()
