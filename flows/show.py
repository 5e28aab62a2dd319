"""What `run`, `show` and `runs` print."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distill.result import DistillResult, PruneResult, TuneResult
from export.result import ConvertResult, ProfileResult
from flows.chain import stage_names
from flows.config import RunConfig
from flows.delivery import BUNDLE, ReportResult
from flows.outcome import Outcome
from flows.quantization import QatResult
from flows.rank_check import RankCheckResult
from flows.sentences import SUMMARY_COLUMNS, headline, sentence, summary_rows, verdict_lines
from flows.stage import DataResult
from flows.verdicts import conditions, rank_cells, verdict
from pipeline.errors import EdgestillError, command, first_line
from pipeline.rundir import RunDir, list_runs
from pipeline.teacher import TeacherResult
from search.result import SearchResult
from search.tournament import TournamentResult

_RESULTS: dict[str, Any] = {
    "data": DataResult,
    "teacher": TeacherResult,
    "rank_check": RankCheckResult,
    "search": SearchResult,
    "tournament": TournamentResult,
    "tune": TuneResult,
    "distill": DistillResult,
    "prune": PruneResult,
    "export": ConvertResult,
    "qat": QatResult,
    "profile": ProfileResult,
    "report": ReportResult,
}


def summary(outcome: Outcome, *, plain: bool) -> str:
    """The end of a run: a sentence, a table, and where the bundle and the report lie."""
    table = _table("", *SUMMARY_COLUMNS)
    for row in summary_rows(outcome):
        table.add_row(*row)
    verdicts = "".join(f"{line}\n" for line in verdict_lines(outcome.profiled))
    where = f"bundle  {outcome.bundle}\ndigest  {outcome.tested.digest}\nreport  {outcome.report}"
    return f"\n{headline(outcome)}\n{_text(table, plain)}{verdicts}{where}"


def rank_check_summary(result: RankCheckResult, *, plain: bool) -> str:
    """Each scorer's rank correlation on this task, and in a sentence what that says of the configured one."""
    table = _table("scorer", "Kendall tau", "95% interval", "students", "no score")
    for row in result.rows:
        mark = " (configured)" if row.scorer == result.configured else ""
        table.add_row(row.scorer + mark, *rank_cells(row))
    notes = "".join(f"note: {note}\n" for note in result.notes)
    return f"{_text(table, plain)}\n{verdict(result)}\n{conditions(result)}\n{notes}"


def show_run(run: RunDir) -> str:
    """A run's stages, a line each, and its files."""
    manifest, config = run.manifest, run.config(RunConfig)
    names = stage_names(config)
    lines = [
        f"{run.root}",
        f"created {manifest.created}, seed {manifest.seed}, config {manifest.config_digest[:12]}",
        "",
    ]
    width = len(str(len(names)))
    for index, stage in enumerate(names, start=1):
        record = manifest.stages.get(stage)
        if record is None:
            lines.append(f"  {index:>{width}}/{len(names)} {stage:<10}       –")
            continue
        said = sentence(run.read(stage, _RESULTS[stage], movable=BUNDLE))
        lines.append(f"✓ {index:>{width}}/{len(names)} {stage:<10} {record.seconds:7.1f} s  {said}")
    if len(manifest.stages) < len(names):
        where = [f"unfinished: {command('resume', run.root)}"]
    elif config.rank_check.only:
        where = [rank_check_summary(run.read("rank_check", RankCheckResult), plain=True)]
    else:
        verdicts = verdict_lines(run.read("profile", ProfileResult))
        tested = run.read("report", ReportResult, movable=BUNDLE)
        bundle, page = run.root / tested.bundle, run.root / tested.report
        moved = "" if bundle.exists() else "  (moved away)"
        missing = "" if page.exists() else f"  (missing; {command('report', run.root)} writes it again)"
        where = [*verdicts, f"bundle  {bundle}{moved}", f"digest  {tested.digest}", f"report  {page}{missing}"]
    return "\n".join([*lines, "", *where])


def show_runs(parent: Path) -> str:
    """All runs below a folder, a row each."""
    paths = list_runs(parent)
    if not paths:
        return f"no runs in {parent}; `edgestill run --preset digits` makes one"
    table = _table("run", "stages", "student", "parameters", "shipped accuracy")
    for path in paths:
        table.add_row(path.name, *_columns(path))
    return _text(table, plain=False).rstrip()


def _columns(path: Path) -> tuple[str, ...]:
    try:
        run = RunDir.view(path)
        stages = run.manifest.stages
        found = run.read("search", SearchResult) if "search" in stages else None
        played = run.read("tournament", TournamentResult) if "tournament" in stages else None
        names = stage_names(run.config(RunConfig))
        tested = run.read("report", ReportResult, movable=BUNDLE) if "report" in stages else None
    except (EdgestillError, ValueError) as error:
        return "?", _shortened(first_line(error, "unreadable").replace(f"{path}/", ""), 60), "", ""
    student = played.winner if played else found.winner if found else None
    return (
        f"{len(stages)}/{len(names)}",
        _shortened(student.architecture) if student else "",
        f"{student.cost.params:,}" if student else "",
        f"{tested.shipped.accuracy:.2%}" if tested else "",
    )


def _shortened(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


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
