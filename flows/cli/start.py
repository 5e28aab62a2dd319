"""Start a run or continue one, here or as a Prefect flow run, and tell how it ended."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgestill.flows.cli.conformance import tell_of_plugins
from edgestill.flows.terminal import say

if TYPE_CHECKING:
    from edgestill.flows.config.model import RunConfig
    from edgestill.flows.outcome import Outcome
    from edgestill.flows.stages.results import RankCheckResult
    from edgestill.pipeline.runs.rundir import RunDir


def start(config: "RunConfig", out: Path, quiet: bool, prefect: bool | None) -> None:
    """Start a new run below the folder `out`."""
    from edgestill.flows import runner
    from edgestill.flows.prefect import launch

    tell_of_plugins()
    if launch.uses_prefect(prefect):
        _summarise(launch.as_flow(config, out))
    else:
        with runner.new_run(config, out) as directory:
            _run_here(directory, quiet)


def go_on(run: Path, out: Path, quiet: bool, prefect: bool | None) -> None:
    """Continue an interrupted run."""
    from edgestill.flows.prefect import launch
    from edgestill.pipeline.runs.rundir import RunDir

    if launch.uses_prefect(prefect):
        _summarise(launch.as_flow(None, out, resume=run))
    else:
        with RunDir.open(run) as directory:
            _run_here(directory, quiet)


def _run_here(directory: "RunDir", quiet: bool) -> None:
    from edgestill.flows.progress import choose_progress
    from edgestill.flows.runner import run_chain
    from edgestill.pipeline.errors import EdgestillError

    try:
        outcome = run_chain(directory, choose_progress(quiet))
    except BaseException as error:
        with contextlib.suppress(EdgestillError, OSError):  # an unreadable manifest must not hide the error
            if directory.manifest.stages:
                say(_how_it_goes_on(directory.root, error), err=True)
        raise
    _summarise(outcome)


def _how_it_goes_on(root: Path, error: BaseException) -> str:
    from edgestill.pipeline.errors import ConfigError, ExportError, command

    line = f"the run is kept: {command('resume', root)} goes on with it"
    if isinstance(error, ConfigError | ExportError):
        line += f"; to change a setting, start a new run: {command('run', root / 'config.yaml')} --set key=value"
    return line


def _summarise(outcome: "Outcome | RankCheckResult") -> None:
    from edgestill.flows.outcome import Outcome
    from edgestill.flows.show import rank_check_summary, summary

    say(summary(outcome) if isinstance(outcome, Outcome) else rank_check_summary(outcome))
