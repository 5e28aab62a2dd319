"""The choice of a night's work: go on with a killed run, repeat nothing where nothing has changed, or begin anew.

Something has changed since a run if its data, its teacher's files, the code and libraries, the machine, or what a warm
start would begin with are others than they were.
"""

import contextlib
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger

from edgestill.flows.chain import stage_names
from edgestill.flows.config.model import RunConfig
from edgestill.flows.prefect.confinement import code_in, paths_in
from edgestill.flows.registry.book import Decision, held_book, now
from edgestill.flows.registry.earlier import collect, last_run
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import DataResult, WarmStartResult
from edgestill.flows.terminal import inert, say
from edgestill.pipeline.device import select_device
from edgestill.pipeline.errors import DataError, EdgestillError, RunDirError, first_line
from edgestill.pipeline.runs.manifest import Origin, origin_here, read_run_manifest
from edgestill.pipeline.runs.rundir import RunDir


def of_tonight(config: RunConfig) -> RunConfig:
    """Return the configuration of a night: it starts warm unless it says otherwise."""
    if config.nightly.warm_start is not None:
        return config
    return config.model_copy(update={"nightly": config.nightly.model_copy(update={"warm_start": True})})


def tonight(config: RunConfig, runs: Path, go_on: Callable[[Path], Any], anew: Callable[[RunDir | None], Any]) -> Any:
    """Do a night's run.

    Args:
        go_on: goes on with a run.
        anew: makes a new run; it may take over finished stages of the run that it is given.
    """
    log = get_run_logger()
    root = last_run(runs, config)
    if root is None:
        return anew(None)
    is_killed = not is_finished(root, config)
    earlier = None if is_killed else _of_now(root, config)
    if not is_killed and (earlier is None or not is_unchanged(earlier, config)):
        return anew(earlier)
    name = inert(root.name)
    why = "going on with the unfinished run %s" if is_killed else "nothing has changed since %s: nothing is repeated"
    log.info(why, name)
    try:
        return go_on(root)
    except (DataError, RunDirError) as error:  # other data than its own, an altered file: a new run has neither
        say(f"{root} cannot go on: {first_line(error)}", err=True)
        log.warning("%s cannot go on (%s); a new run is made", name, type(error).__name__)
        if is_killed:
            _give_up(root, error)
    return anew(None)


def is_finished(root: Path, config: RunConfig) -> bool:
    return set(stage_names(config)) <= read_run_manifest(root).stages.keys()


def _give_up(root: Path, error: EdgestillError) -> None:
    """Enter a run that cannot go on in the registry, so that retention may remove it; one that is held stays out."""
    with contextlib.suppress(RunDirError), RunDir.open(root), held_book(root.parent) as pages:
        reason = f"it cannot go on ({type(error).__name__})"
        decision = Decision(run=root.name, at=now(), kind="abandoned", by="rule", reason=reason)
        pages.book = pages.book.deciding(decision)


def _of_now(root: Path, config: RunConfig) -> RunDir | None:
    """Return the run if it is of this code, these libraries, this machine and the files that the configuration names.

    Data are left out: their digests tell.
    """
    try:
        run = RunDir.view(root)
    except RunDirError:
        return None
    manifest = run.manifest
    select_device(config.device)  # sets the threads, which the origin names
    is_here = Origin.model_validate(manifest.model_dump(include=set(Origin.model_fields))) == origin_here()
    if not is_here or manifest.earlier or manifest.changes or any(code_in(config)):
        return None
    created = datetime.datetime.fromisoformat(manifest.created).timestamp()
    named = [path for name, path in paths_in(config) if not name.startswith("data.")]
    return None if any(_changed_after(path, created) for path in named) else run


def is_unchanged(run: RunDir, config: RunConfig) -> bool:
    """True if a run of now would have the same data and begin with the same."""
    context = StageContext(run, config, lambda *tick: None)
    try:
        context.splits()
        if not config.nightly.warm_start:
            return True
        begun = collect(run.root.parent, config, run.read("data", DataResult)).begins
        return begun == run.read("warm_start", WarmStartResult).begins
    except (DataError, RunDirError):
        return False


def _changed_after(path: Path, moment: float) -> bool:
    files = [path, *(path.rglob("*") if path.is_dir() else ())]
    try:
        return any(file.stat().st_ctime > moment for file in files)  # unlike the time of a change, no copy keeps it
    except FileNotFoundError:  # a name of a hub, which is no file here
        return False
