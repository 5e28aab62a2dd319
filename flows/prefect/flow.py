"""The chain as one Prefect flow, with the typed configuration as its parameter.

Prefect orchestrates and shows. Only the run directory knows the finished stages, so a run can be resumed with or
without Prefect. The stages and their order are in `flows/chain.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from edgestill.flows.config import RunConfig, config_of
from edgestill.flows.outcome import Outcome
from edgestill.flows.prefect.confinement import require_inside, reticent
from edgestill.flows.progress import PlainLines
from edgestill.flows.runner import new_run, run_chain
from edgestill.flows.stages.results import RankCheckResult
from edgestill.flows.terminal import inert
from edgestill.flows.wording.sentences import SUMMARY_COLUMNS, summary_rows
from edgestill.flows.wording.verdicts import conditions, rank_cells, verdict
from edgestill.flows.wording.worth import worth_lines
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.runs.rundir import RunDir


def _flow_run_name() -> str:
    """Name of the flow run: the configuration's, or the resumed run directory's."""
    given = flow_run.parameters  # validated
    return Path(given["resume"]).name if given["resume"] else str(given["config"].name)


@flow(
    name="compress",
    flow_run_name=_flow_run_name,
    persist_result=False,
    description="Make a small student that ships from a trained teacher and a budget.",
)
def compress(
    config: RunConfig = RunConfig(),  # noqa: B008
    out: str = "runs",
    resume: str | None = None,
) -> Outcome | RankCheckResult:
    """The whole chain as one flow run, each stage a task run of it.

    Args:
        config: what to do; the defaults are a run on the built-in digits.
        out: the folder that the new run directory is made in.
        resume: a run directory to go on with instead; its own configuration counts then.
    """
    logger = get_run_logger()
    below, begun = Path(out).expanduser(), Path(resume).expanduser() if resume else None
    require_inside({"config": config, "out": below, "resume": begun})
    with reticent(), RunDir.open(begun) if begun else new_run(config, below) as run:
        logger.info("run directory %s", inert(str(run.root.resolve())))
        require_inside({"config": config_of(run)})
        outcome = run_chain(run, PlainLines(logger.info), _as_task)
    cautions: list[str] = []
    with nicety("the artifact with the run's figures was not made", cautions):
        _keep_artifact(outcome)
    if isinstance(outcome, Outcome):
        outcome = outcome.model_copy(update={"cautions": (*outcome.cautions, *cautions)})
        cautions = list(outcome.cautions)
    for caution in cautions:
        logger.warning("%s", inert(caution))
    return outcome


def _as_task(name: str, work: Callable[[], Any]) -> Any:
    # The run directory knows the finished stages; Prefect's cache would be a second, hidden truth.
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(work)()


def _keep_artifact(outcome: Outcome | RankCheckResult) -> None:
    if isinstance(outcome, Outcome):
        create_markdown_artifact(
            key="edgestill-run", markdown=_markdown(outcome), description="figures of teacher, student and shipped file"
        )
    else:
        create_markdown_artifact(
            key="edgestill-ranks", markdown=_ranks(outcome), description="rank correlation of each scorer with accuracy"
        )


def _markdown(outcome: Outcome) -> str:
    rows = "\n".join("| " + " | ".join(map(inert, row)) + " |" for row in summary_rows(outcome))
    return (
        f"| | {' | '.join(SUMMARY_COLUMNS)} |\n|---|{'---|' * len(SUMMARY_COLUMNS)}\n{rows}\n\n"
        f"{''.join(f'{line} ' for line in worth_lines(outcome.baselines, outcome.tested.worth))}"
        f"Bundle `{outcome.bundle.resolve()}`, report `{outcome.report.resolve()}`"
    )


def _ranks(result: RankCheckResult) -> str:
    rows = "\n".join(f"| {row.scorer} | " + " | ".join(rank_cells(row)) + " |" for row in result.rows)
    return (
        f"| scorer | Kendall tau | 95% interval | students | no score |\n|---|---|---|---|---|\n{rows}\n\n"
        f"{verdict(result)} {conditions(result)}"
    )
