"""Artifacts of a flow run: how far it is, and at its end its figures, verdicts, cautions and the Pareto picture.

Paths of this machine are left out, as a reader of the UI may sit elsewhere: the run goes by its name.
"""

import base64
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)

from edgestill.flows.outcome import Outcome, Part
from edgestill.flows.progress import PlainLines
from edgestill.flows.stages.results import RankCheckResult
from edgestill.flows.terminal import inert
from edgestill.flows.wording.sentences import SUMMARY_COLUMNS, headline, summary_rows, verdict_lines
from edgestill.flows.wording.verdicts import conditions, rank_cells, verdict
from edgestill.flows.wording.worth import worth_lines
from edgestill.pipeline.figures import duration
from edgestill.pipeline.nicety import nicety
from edgestill.search.result import SearchResult

_TOLD_S, _LINE_S, _SILENT_S = 5, 10, 60  # between two updates; between two lines; until a silent stage is told
_WIDTH, _HEIGHT = 800, 360


class Shown(PlainLines):
    """Progress as lines of the log and as an artifact; a stage that says nothing for a minute is told to be at work.

    The artifact is updated by a thread of its own: a server that is away delays no work.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(tell, every_s=_LINE_S)
        self._place, self._within, self._since = "", "", time.monotonic()
        self._percent = self._step = 0.0
        self._begun = 0.0  # per cent of the stages before
        self._artifact: Any = None
        self._ended = threading.Event()
        self._spoken = time.monotonic()
        context = contextvars.copy_context()  # the artifact is the flow run's
        self._thread = threading.Thread(target=context.run, args=(self._keep_up,), daemon=True)
        self._thread.start()

    def begin(self, stage: str, index: int, count: int) -> None:
        super().begin(stage, index, count)
        self._place, self._since, self._spoken = f"{index} of {count}: {stage}", time.monotonic(), time.monotonic()
        self._percent = self._begun = 100 * (index - 1) / count
        self._within, self._step = "", 100 / count

    def tick(self, done: int, total: int, note: str) -> None:
        super().tick(done, total, note)
        self._within = f", {done} of {total} {note}".rstrip()
        self._percent = self._begun + self._step * min(done / max(total, 1), 1)

    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None:
        super().end(stage, seconds, sentence, reused)
        self._percent, self._within = self._begun + self._step, ""

    def close(self) -> None:
        self._ended.set()
        self._thread.join(_TOLD_S)

    def _keep_up(self) -> None:
        told: tuple[str, float] | None = None
        is_last = False
        while not is_last:
            is_last = self._ended.wait(_TOLD_S)
            now = time.monotonic()
            if not is_last and now - max(self._spoken, self._last) >= _SILENT_S:
                self._spoken = now
                self._tell(inert(f"[{self._place}] at work for {duration(now - self._since)}{self._within}"))
            state = (inert(f"stage {self._place}{self._within}"), round(self._percent, 1))
            if self._place and state != told:
                told = state
                self._update(*state)

    def _update(self, said: str, percent: float) -> None:
        with nicety("the progress was not shown", []):  # the next update may reach the server
            if self._artifact is None:
                self._artifact = create_progress_artifact(percent, "edgestill-progress", said)
            else:
                update_progress_artifact(self._artifact, percent, said)


def keep_artifacts(outcome: "Outcome | RankCheckResult | Part") -> None:
    """Make the artifacts of a finished flow run."""
    if isinstance(outcome, Outcome):
        create_markdown_artifact(_of_run(outcome), "edgestill-run", "figures, verdicts and cautions of the run")
        picture = base64.b64encode(_pareto(outcome.found).encode()).decode()
        create_image_artifact(
            f"data:image/svg+xml;base64,{picture}",
            "edgestill-pareto",
            "the search's candidates by parameters and value",
        )
    elif isinstance(outcome, Part):
        create_markdown_artifact(_of_part(outcome), "edgestill-part", "the stages that the run has finished")
    else:
        create_markdown_artifact(_of_ranks(outcome), "edgestill-ranks", "rank correlation of each scorer with accuracy")


def _pareto(found: SearchResult) -> str:
    from edgestill.flows.report.drawing.canvas import standalone
    from edgestill.flows.report.drawing.scatter import search_scatter

    return standalone(search_scatter(found, _WIDTH, _HEIGHT, with_tips=False), _WIDTH, _HEIGHT)


def _of_run(outcome: Outcome) -> str:
    verdicts = verdict_lines(outcome.profiled)
    return "\n\n".join(
        [
            f"**{inert(headline(outcome))}**",
            _table(["", *SUMMARY_COLUMNS], summary_rows(outcome)),
            *map(inert, worth_lines(outcome.baselines, outcome.tested.worth)),
            *(_listed("Formats", verdicts)),
            *(_listed("Cautions", outcome.cautions)),
            _way_on(outcome.run.resolve().name),
        ]
    )


def _of_part(part: Part) -> str:
    return "\n\n".join(
        [*_listed("Stages", part.sentences), *_listed("Cautions", part.cautions), _way_on(part.run.resolve().name)]
    )


def _of_ranks(result: RankCheckResult) -> str:
    rows = [(row.scorer, *rank_cells(row)) for row in result.rows]
    columns = ["scorer", "Kendall tau", "95% interval", "students", "no score"]
    return "\n\n".join([_table(columns, rows), f"{verdict(result)} {conditions(result)}"])


def _table(columns: Any, rows: Any) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(inert, row))} |" for row in rows)])


def _listed(title: str, sentences: Any) -> list[str]:
    found = "\n".join(f"- {inert(sentence)}" for sentence in sentences)
    return [f"**{title}**\n\n{found}"] if found else []


def _way_on(name: str) -> str:
    return f"Run `{name}`: where it was made, `edgestill show {name}` tells where its bundle and its report are."
