"""The commands for runs: run, plan, resume, show, runs, rank-check."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgestill.flows.cli.conformance import tell_of_plugins
from edgestill.flows.cli.failures import failed
from edgestill.flows.cli.options import Change, Commands, Config, Out, Preset, Quiet, Run, Set, ViaPrefect, long
from edgestill.flows.terminal import answer, close_streams, say

if TYPE_CHECKING:
    from edgestill.flows.config.model import RunConfig
    from edgestill.flows.prefect.flow import Ended
    from edgestill.pipeline.runs.rundir import RunDir

# Settings of the temporary server, started by Prefect where there is none: it answers no page of a browser.
_TEMPORARY = {
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
}

Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stage to end with. Default: the last.")]


@long
def run(
    config: Config = None, preset: Preset = None, settings: Set = None, out: Out = Path("runs"),
    quiet: Quiet = False, prefect: ViaPrefect = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Try every stage on a handful of examples first; no figure of it counts.")
    ] = False,
    until: Until = None,
) -> None:  # fmt: skip
    """Make a student that ships, from a teacher and a budget.

    Search a student, tune and distill it, export and measure its files, and write a bundle and a report.
    """
    from edgestill.flows.config import load_config
    from edgestill.pipeline.errors import ConfigError

    if config is None and preset is None and not settings:
        raise ConfigError(["nothing to run: give a CONFIG.yaml, or --preset digits for a first run"])
    loaded = load_config(config, preset, settings or [], note=_note)
    if smoke:
        from edgestill.flows.config.smoke import smoke as made_small

        loaded = made_small(loaded)
    start(loaded, out, quiet, prefect if until is None else False, _stage(until))


def plan(config: Config = None, preset: Preset = None, settings: Set = None, quiet: Quiet = False) -> None:
    """Estimate a run's time, memory and disk before it starts.

    Say how much of the space keeps the budget. Nothing is kept but what later runs take from the cache.
    """
    from edgestill.flows.config import load_config
    from edgestill.flows.plan.page import plan_lines
    from edgestill.flows.plan.plan import make_plan
    from edgestill.flows.progress import choose_progress
    from edgestill.pipeline.errors import ConfigError

    if config is None and preset is None and not settings:
        raise ConfigError(["nothing to plan: give a CONFIG.yaml, or --preset digits for a first look"])
    tell_of_plugins()
    answer(plan_lines(make_plan(load_config(config, preset, settings or []), choose_progress(quiet))))


@long
def resume(
    run: Run, settings: Change = None, out: Out = Path("runs"), quiet: Quiet = False, prefect: ViaPrefect = None,
    until: Until = None,
) -> None:  # fmt: skip
    """Continue an interrupted run; finished stages stay."""
    from edgestill.pipeline.runs.find import find_run

    found = find_run(run, out)
    if settings:
        _change(found, settings)
    go_on(found, out, quiet, prefect, _stage(until))


def show(run: Run, out: Out = Path("runs")) -> None:
    """Show a run's stages, results and files."""
    from edgestill.flows.show import show_run
    from edgestill.pipeline.runs.find import find_run
    from edgestill.pipeline.runs.rundir import RunDir

    answer(show_run(RunDir.view(find_run(run, out))))


def runs(out: Out = Path("runs")) -> None:
    """List all runs, oldest first."""
    from edgestill.flows.show import show_runs

    answer(show_runs(out))


@long
def rank_check(
    config: Config = None, preset: Preset = None, settings: Set = None,
    students: Annotated[
        int | None,
        typer.Option(min=4, help="Number of students to train, of all sizes. Default: rank_check.students, or 12."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each student's training. Default: rank_check.epochs.")
    ] = None,
    out: Out = Path("runs"), quiet: Quiet = False, prefect: ViaPrefect = None,
) -> None:  # fmt: skip
    """Check how well the training-free scores rank students.

    Train a few students of the configured task briefly and compare the order of their accuracies with that of each
    scorer. If interrupted, `edgestill resume` continues it.
    """
    from edgestill.flows.config import load_config
    from edgestill.pipeline.errors import ConfigError

    if config is None and preset is None and not settings:
        raise ConfigError(["nothing to check: give a CONFIG.yaml, or --preset digits for a first look"])
    if students is None:
        given = load_config(config, preset, [*(settings or []), "rank_check.only=false"], check_files=False)
        students = given.rank_check.students or 12
    chosen = [f"rank_check.students={students}", "rank_check.only=true"]
    if epochs is not None:
        chosen.append(f"rank_check.epochs={epochs}")
    loaded = load_config(config, preset, [*(settings or []), *chosen], note=_note)
    start(loaded, out, quiet, prefect)


def _stage(name: str | None) -> str | None:
    """Return a stage's name as given.

    Raises:
        UserError: there is no such stage.
    """
    from edgestill.flows.chain import STAGES
    from edgestill.pipeline.errors import UserError, nearest

    names = [stage.name for stage in STAGES]
    if name is not None and name not in names:
        raise UserError(f"--until {name!r} is no stage; {nearest(name, names)}")
    return name


def _note(line: str) -> None:
    say(f"note: {line}", err=True)


def _change(run: Path, settings: list[str]) -> None:
    from edgestill.flows.reconfigure import reconfigure
    from edgestill.pipeline.runs.rundir import RunDir

    with RunDir.open(run) as directory:
        for key, change in reconfigure(directory, settings).items():
            say(f"changed: {key}: {change}", err=True)


def start(config: "RunConfig", out: Path, quiet: bool, prefect: bool | None, last: str | None = None) -> None:
    """Start a new run below the folder `out`, up to its stage `last`."""
    from edgestill.flows import runner
    from edgestill.flows.prefect import launch

    tell_of_plugins()
    if launch.uses_prefect(prefect):
        as_flow(lambda flows: (flows.search if last else flows.compress)(config, str(out.absolute())))
    else:
        with runner.new_run(config, out) as directory:
            run_here(directory, quiet, is_new=True, last=last)


def go_on(run: Path, out: Path, quiet: bool, prefect: bool | None, last: str | None = None) -> None:
    """Continue an interrupted run, up to its stage `last`."""
    from edgestill.flows.prefect import launch
    from edgestill.pipeline.runs.rundir import RunDir

    if launch.uses_prefect(prefect) and last is None:
        begun = str(run.absolute())
        as_flow(lambda flows: flows.compress(out=str(out.absolute()), resume=begun))
    else:
        with RunDir.open(run) as directory:
            run_here(directory, quiet, last=last)


def run_here(directory: "RunDir", quiet: bool, is_new: bool = False, last: str | None = None) -> None:
    """Run the stages of a held run in this process, up to `last`, and say how that ended."""
    from edgestill.flows.progress import choose_progress
    from edgestill.flows.runner import is_kept, run_part
    from edgestill.pipeline.errors import EdgestillError, UserError

    try:
        outcome = run_part(directory, last, choose_progress(quiet))
    except BaseException as error:
        with contextlib.suppress(EdgestillError, OSError):  # an unreadable manifest must not hide the error
            if not is_new or is_kept(directory, error):
                say(_how_it_goes_on(directory.root, error), err=True)
            elif isinstance(error, UserError):
                say("the run is not kept, as nothing was trained yet; mend this and start it again", err=True)
        raise
    _summarise(outcome)


def _how_it_goes_on(root: Path, error: BaseException) -> str:
    from edgestill.pipeline.errors import EdgestillError, MissingDependencyError, RunDirError, WaitingError, command

    if isinstance(error, WaitingError):
        return f"{command('label', root)} writes what to label and reads the labels; {command('resume', root)} goes on"
    lines = [f"the run is kept: {command('resume', root)} goes on with it"]
    if isinstance(error, EdgestillError) and not isinstance(error, MissingDependencyError | RunDirError):
        lines += [
            f"to change a setting that no finished stage has read: {command('resume', root, '--set', 'KEY=VALUE')}",
            f"to change any other, in a new run: {command('run', root / 'config.yaml', '--set', 'KEY=VALUE')}",
        ]
    return "\n".join(lines)


def _summarise(outcome: "Ended") -> None:
    from edgestill.flows.outcome import Outcome, Part
    from edgestill.flows.show import part_summary, rank_check_summary, summary

    if isinstance(outcome, Part):
        say(part_summary(outcome))
    else:
        say(summary(outcome) if isinstance(outcome, Outcome) else rank_check_summary(outcome))


def as_flow(call: "Callable[[Any], object]") -> None:
    """Run one of the flows in this process; without a server, Prefect starts a temporary one (some 10 s).

    Args:
        call: calls a flow of the module that it is given; paths must be absolute.

    Raises:
        UserError: a server is named and does not answer.
    """
    from edgestill.flows.prefect.launch import in_prefects_folder, require_leave

    for name, value in _TEMPORARY.items():
        os.environ.setdefault(name, value)
    with in_prefects_folder():
        from prefect.settings import PREFECT_API_URL

        url = PREFECT_API_URL.value()
        if url:
            require_leave(url)
        from edgestill.flows.prefect import flow

        flow.LAST_WORDS.set(_last_words)
        call(flow)


def _last_words(outcome: "Ended | Exception", server_answers: bool) -> None:
    """Say how the run ended; without its server, end this process: Prefect would try for minutes to reach it."""
    code = 0
    if not isinstance(outcome, Exception):
        _summarise(outcome)
    elif not server_answers:
        code = failed(outcome)
    if not server_answers:
        say("caution: the Prefect server does not answer; it is told how the run ended when it is back", err=True)
        close_streams()
        os._exit(code)


COMMANDS: Commands = {"run": run, "plan": plan, "resume": resume, "show": show, "runs": runs, "rank-check": rank_check}
