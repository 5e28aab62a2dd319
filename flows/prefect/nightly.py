"""The night: a scheduled run of its folder, alone there, whose student is then compared with the promoted one."""

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.states import Cancelled

from edgestill.flows.outcome import Outcome
from edgestill.flows.prefect.launch import server_answers
from edgestill.flows.prefect.names import RETENTION
from edgestill.flows.prefect.notify import notify
from edgestill.flows.registry import drift
from edgestill.flows.registry.book import one_night, read_book
from edgestill.flows.registry.promotion import consider
from edgestill.flows.registry.retention import Retention, prune
from edgestill.flows.terminal import inert
from edgestill.pipeline.errors import first_line
from edgestill.pipeline.nicety import nicety


def at_night(out: Path, work: Callable[[], Any]) -> Any:
    """Do a night's work, unless another night is at work in the folder, on whichever machine."""
    runs = out.expanduser()
    with one_night(runs) as is_free:
        if not is_free:
            return Cancelled(name="Skipped", message="another night is at work in this folder of runs")
        cautions: list[str] = []
        try:
            outcome = work()
        except Exception as error:
            _caution(notify("failed", first_line(error, type(error).__name__)))
            raise
        if isinstance(outcome, Outcome):
            with nicety("the night's student was not compared with the promoted one", cautions):
                _decide(outcome, cautions)
            with nicety("old runs were not removed", cautions):
                _remove(runs)
        _caution(cautions)
        return outcome


def _decide(outcome: Outcome, cautions: list[str]) -> None:
    root = outcome.run.resolve()
    book = read_book(root.parent)
    is_new = all(decision.run != root.name for decision in book.decisions)  # not the last night's, unchanged
    if is_new and book.current is not None:
        with nicety("the promoted student was not tried on the night's data", cautions):
            _look_for_drift(root, root.parent / book.current, cautions)
    decision = consider(root)
    said = inert(f"{decision.run}: {decision.kind}; {decision.reason}")
    get_run_logger().info("%s", said)
    if server_answers():
        create_markdown_artifact(said, "edgestill-registry", "the night's student beside the promoted one")
    if is_new and decision.kind == "promoted":
        cautions += notify("promoted", said)


def _look_for_drift(candidate: Path, promoted: Path, cautions: list[str]) -> None:
    found = drift.measure(candidate, promoted)
    if found is None:
        return
    said = inert(f"the promoted {promoted.name}: {found.sentence}")
    get_run_logger().info("%s", said)
    if found.is_drift:
        drift.enter(promoted, found)
        cautions.append(f"the promoted student is worse on the night's data; {said}")
        cautions += notify("drifted", said)


def _remove(runs: Path) -> None:
    limits = Retention.model_validate_json(os.environ.get(RETENTION, "{}"))
    if limits == Retention():
        return
    for name in prune(runs, limits, datetime.datetime.now(datetime.UTC)):
        get_run_logger().info("removed the old run %s", inert(name))


def _caution(sentences: list[str]) -> None:
    for sentence in sentences:
        get_run_logger().warning("%s", inert(sentence))
