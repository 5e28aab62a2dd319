"""What `run`, `show` and `runs` print."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distill.result import DistillResult, TuneResult
from export.result import ConvertResult, ProfileResult
from flows.chain import STAGES
from flows.delivery import ReportResult
from flows.outcome import Outcome
from flows.sentences import SUMMARY_COLUMNS, headline, sentence, summary_rows
from flows.stages import DataResult
from pipeline.errors import EdgestillError
from pipeline.rundir import RunDir, list_runs
from pipeline.teacher import TeacherResult
from search.result import SearchResult

_RESULTS: dict[str, Any] = dict(
    zip(
        STAGES,
        (
            DataResult,
            TeacherResult,
            SearchResult,
            TuneResult,
            DistillResult,
            ConvertResult,
            ProfileResult,
            ReportResult,
        ),
        strict=True,
    )
)


def summary(outcome: Outcome, *, plain: bool) -> str:
    """The end of a run: a sentence, a table, and where the bundle and the report lie."""
    table = _table("", *SUMMARY_COLUMNS)
    for row in summary_rows(outcome):
        table.add_row(*row)
    return f"\n{headline(outcome)}\n{_text(table, plain)}bundle  {outcome.bundle}\nreport  {outcome.report}"


def show_run(run: RunDir) -> str:
    """A run's stages, a line each, and its files."""
    manifest = run.manifest
    lines = [
        f"{run.root}",
        f"created {manifest.created}, seed {manifest.seed}, config {manifest.config_digest[:12]}",
        "",
    ]
    for index, stage in enumerate(STAGES, start=1):
        record = manifest.stages.get(stage)
        if record is None:
            lines.append(f"  {index}/{len(STAGES)} {stage:<8}     –")
            continue
        said = sentence(run.read(stage, _RESULTS[stage]))
        lines.append(f"✓ {index}/{len(STAGES)} {stage:<8} {record.seconds:7.1f} s  {said}")
    done = len(manifest.stages) == len(STAGES)
    where = [f"bundle  {run.root / 'bundle'}", f"report  {run.root / 'report.html'}"]
    return "\n".join([*lines, "", *(where if done else [f"unfinished: `edgestill resume {run.root}`"])])


def show_runs(parent: Path) -> str:
    """All runs below a folder, a row each."""
    paths = list_runs(parent)
    if not paths:
        return f"no runs in {parent}; `edgestill run --preset digits` makes one"
    table = _table("run", "stages", "student", "parameters", "shipped accuracy")
    for path in paths:
        table.add_row(path.name, *_columns(RunDir.view(path)))
    return _text(table, plain=False).rstrip()


def _columns(run: RunDir) -> tuple[str, ...]:
    try:
        stages = run.manifest.stages
        found = run.read("search", SearchResult) if "search" in stages else None
        tested = run.read("report", ReportResult) if "report" in stages else None
    except (EdgestillError, ValueError) as error:
        return "?", (str(error).splitlines() or ["unreadable"])[0][:60], "", ""
    return (
        f"{len(stages)}/{len(STAGES)}",
        found.winner.architecture if found else "",
        f"{found.winner.cost.params:,}" if found else "",
        f"{tested.shipped.accuracy:.2%}" if tested else "",
    )


def _table(*columns: str) -> Table:
    from rich import box

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", no_wrap=True)
    return table


def _text(table: Table, plain: bool) -> str:
    out = io.StringIO()
    Console(file=out, width=160, no_color=plain, force_terminal=not plain).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
