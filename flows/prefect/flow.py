"""The chain and its parts as Prefect flows, with the typed configuration or a run as their parameters.

Prefect orchestrates and shows. Only the run directory knows the finished stages, so a run can be resumed with or
without Prefect. The stages and their order are in `flows/chain.py`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from edgestill.flows.chain import LAST
from edgestill.flows.config import RunConfig, config_of
from edgestill.flows.config.form import apply
from edgestill.flows.outcome import Outcome, Part
from edgestill.flows.prefect.artifacts import Shown, keep_artifacts
from edgestill.flows.prefect.confinement import require_inside, reticent
from edgestill.flows.prefect.launch import server_answers
from edgestill.flows.prefect.names import is_night
from edgestill.flows.prefect.nightly import at_night
from edgestill.flows.prefect.notify import tell_of_a_crash
from edgestill.flows.prefect.owed import forget, owe
from edgestill.flows.prefect.tonight import of_tonight, tonight
from edgestill.flows.reconfigure import going_on
from edgestill.flows.runner import new_run, run_part
from edgestill.flows.stages.results import RankCheckResult
from edgestill.flows.terminal import inert
from edgestill.pipeline.errors import first_line
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.runs.find import find_run
from edgestill.pipeline.runs.rundir import RunDir

Ended = Outcome | RankCheckResult | Part
LAST_WORDS: ContextVar[Callable[[Ended | Exception, bool], None] | None] = ContextVar("last_words", default=None)
"""Called at the end of a flow run's work, before the server is told: (outcome or error, True if the server answers)."""


def _flow_run_name() -> str:
    """Name of the flow run: the configuration's, or the run directory's that it goes on with."""
    given = flow_run.parameters  # validated
    begun = given.get("resume") or given.get("run")
    if begun:
        return Path(begun).name
    return str((given.get("settings") or {}).get("name") or given["config"].name)


def server_knows_the_end(flow: Any, run: Any, state: Any) -> None:
    """Forget the end that was owed to the server; Prefect calls this once it has told it."""
    forget(str(run.id))


_HOOKS = [server_knows_the_end]
_as_flow = functools.partial(
    flow,
    flow_run_name=_flow_run_name,
    persist_result=False,
    on_completion=_HOOKS,
    on_failure=_HOOKS,
    on_crashed=[tell_of_a_crash],
)


@_as_flow(name="compress", description="Make a small student that ships from a trained teacher and a budget.")
def compress(
    config: RunConfig = RunConfig(),  # noqa: B008
    out: str = "runs",
    resume: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Outcome | RankCheckResult:
    """The whole chain as one flow run, each stage a task run of it.

    Args:
        config: what to do; the defaults are a run on the built-in digits.
        out: the folder that the new run directory is made in.
        resume: a run directory to go on with instead; its own configuration counts then.
        settings: fields of the run form that differ from the configuration.
    """
    if resume:
        outcome: Outcome | RankCheckResult = _carried_out(lambda: _worked(_begun(resume, out, ())), out)
    elif is_night(flow_run.tags):
        outcome = at_night(Path(out), lambda: _carried_out(lambda: _tonight(config, settings, out), out))
    else:
        outcome = _carried_out(lambda: _worked(_new(config, settings, out)), out)
    return outcome


@_as_flow(name="search", description="Search the student, and no more: distill, export and profile go on from it.")
def search(
    config: RunConfig = RunConfig(),  # noqa: B008
    out: str = "runs",
    settings: dict[str, Any] | None = None,
) -> Part | RankCheckResult:
    """The chain up to the tournament; the arguments are those of `compress`."""
    found: Part | RankCheckResult = _carried_out(lambda: _worked(_new(config, settings, out), LAST["search"]), out)
    return found


@_as_flow(name="rank-check", description="Check how well the training-free scores rank students.")
def rank_check(
    config: RunConfig = RunConfig(),  # noqa: B008
    out: str = "runs",
    students: int = 12,
    epochs: int = 8,
    settings: dict[str, Any] | None = None,
) -> RankCheckResult:
    """The chain up to the rank check of so many students; the other arguments are those of `compress`."""
    chosen = [f"rank_check.students={students}", f"rank_check.epochs={epochs}", "rank_check.only=true"]
    given = {**(settings or {}), "more": [*(settings or {}).get("more", []), *chosen]}
    found: RankCheckResult = _carried_out(lambda: _worked(_new(config, given, out)), out)
    return found


@_as_flow(name="distill", description="Tune and distill the student of a run that has found one.")
def distill(
    run: str = "latest", out: str = "runs", methods: list[str] | None = None, more: list[str] | None = None
) -> Part:
    """Go on from a run up to the distilled student.

    Args:
        run: its folder, its name below `out`, or `latest`.
        methods: distillation methods; None: as the run has them.
        more: other settings, `KEY=VALUE` each.
    """
    return _further("distill", run, out, "distill.methods", methods, more)


@_as_flow(name="export", description="Export the student of a run that has distilled one.")
def export(
    run: str = "latest", out: str = "runs", formats: list[str] | None = None, more: list[str] | None = None
) -> Part:
    """Go on from a run up to its exported files; the arguments are those of `distill`, with formats for methods."""
    return _further("export", run, out, "export.formats", formats, more)


@_as_flow(name="profile", description="Time the files of a run that has exported them.")
def profile(run: str = "latest", out: str = "runs", more: list[str] | None = None) -> Part:
    """Go on from a run up to the timing of its files; the arguments are those of `distill`."""
    return _further("profile", run, out, "", None, more)


def _further(name: str, run: str, out: str, key: str, values: list[str] | None, more: list[str] | None) -> Part:
    settings = [*([f"{key}=[{','.join(values)}]"] if values else []), *(more or [])]
    found: Part = _carried_out(lambda: _worked(_begun(run, out, settings), LAST[name]), out)
    return found


def _new(config: RunConfig, settings: dict[str, Any] | None, out: str) -> contextlib.AbstractContextManager[RunDir]:
    _allow(apply(config, settings or {}, check_files=False))
    return new_run(apply(config, settings) if settings else config, Path(out).expanduser())


@contextlib.contextmanager
def _begun(name: str, out: str, settings: Any) -> Iterator[RunDir]:
    below, path = Path(out).expanduser(), Path(name).expanduser()
    path = path if len(path.parts) > 1 else below / name
    require_inside({"run": path})  # before anything tells if it is there
    found = path if path.is_dir() else find_run(name, below)
    require_inside({"run": found})
    with going_on(found, settings, new_run, _allow) as run:
        yield run


def _tonight(config: RunConfig, settings: dict[str, Any] | None, out: str) -> Any:
    _allow(apply(config, settings or {}, check_files=False))
    chosen, runs = of_tonight(apply(config, settings) if settings else config), Path(out).expanduser()
    return tonight(
        chosen,
        runs,
        lambda root: _worked(_begun(str(root.absolute()), out, ())),
        lambda earlier: _worked(new_run(chosen, runs), earlier=earlier),
    )


def _allow(config: RunConfig) -> None:
    require_inside({"config": config})


def _worked(
    opened: contextlib.AbstractContextManager[RunDir], last: str | None = None, earlier: RunDir | None = None
) -> Ended:
    """Run the stages of a run; `last` and `earlier` are those of `run_part`."""
    logger = get_run_logger()
    with opened as run:
        logger.info("run %s", inert(run.root.resolve().name))
        _allow(config_of(run))
        return run_part(run, last, Shown(logger.info), _as_task, earlier)


def _carried_out(work: Callable[[], Any], out: str) -> Any:
    """Do the work of a flow run; its result and its last words do not wait for the server."""
    logger = get_run_logger()
    require_inside({"out": Path(out).expanduser()})
    try:
        with reticent():
            outcome = work()
    except Exception as error:
        owe(flow_run.id, first_line(error), is_done=False)
        _say_last(error, server_answers())
        raise
    answers = server_answers()
    cautions: list[str] = []
    if answers:
        with nicety("the artifacts with the run's figures were not made", cautions):
            keep_artifacts(outcome)
    if isinstance(outcome, Outcome | Part):
        outcome = outcome.model_copy(update={"cautions": (*outcome.cautions, *cautions)})
        cautions = list(outcome.cautions)
    for caution in cautions if answers else ():
        logger.warning("%s", inert(caution))
    owe(flow_run.id, "the run is finished")
    _say_last(outcome, answers)
    return outcome


def _say_last(outcome: Ended | Exception, server_answers: bool) -> None:
    if say := LAST_WORDS.get():
        say(outcome, server_answers)


def _as_task(name: str, work: Callable[[], Any]) -> Any:
    # The run directory knows the finished stages; Prefect's cache would be a second, hidden truth.
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(work)()
