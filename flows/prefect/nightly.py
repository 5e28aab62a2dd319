"""The night: a scheduled run of its folder, alone there, whose student is then compared with the promoted one."""

import datetime
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.states import Cancelled

from edgestill.flows.outcome import Outcome
from edgestill.flows.prefect.deployments import CATCH_UP, RETENTION
from edgestill.flows.prefect.launch import server_answers
from edgestill.flows.registry.book import one_night
from edgestill.flows.registry.promotion import consider
from edgestill.flows.registry.retention import Retention, prune
from edgestill.flows.terminal import inert
from edgestill.pipeline.nicety import nicety

_SCHEDULED = "auto-scheduled"  # Prefect's tag of a run of a schedule


def is_night(tags: Sequence[str]) -> bool:
    """True for a flow run of the schedule, and for one that makes up for missed ones."""
    return _SCHEDULED in tags or CATCH_UP in tags


def at_night(out: Path, work: Callable[[], Any]) -> Any:
    """Do a night's work, unless another night is at work in the folder, on whichever machine."""
    runs = out.expanduser()
    with one_night(runs) as is_free:
        if not is_free:
            return Cancelled(name="Skipped", message="another night is at work in this folder of runs")
        outcome = work()
        cautions: list[str] = []
        if isinstance(outcome, Outcome):
            with nicety("the night's student was not compared with the promoted one", cautions):
                _decide(outcome)
            with nicety("old runs were not removed", cautions):
                _remove(runs)
        for caution in cautions:
            get_run_logger().warning("%s", inert(caution))
        return outcome


def _decide(outcome: Outcome) -> None:
    decision = consider(outcome.run.resolve())
    said = inert(f"{decision.run}: {decision.kind}; {decision.reason}")
    get_run_logger().info("%s", said)
    if server_answers():
        create_markdown_artifact(said, "edgestill-registry", "the night's student beside the promoted one")


def _remove(runs: Path) -> None:
    limits = Retention.model_validate_json(os.environ.get(RETENTION, "{}"))
    if limits == Retention():
        return
    for name in prune(runs, limits, datetime.datetime.now(datetime.UTC)):
        get_run_logger().info("removed the old run %s", inert(name))
