"""Output of `run`, `rank-check`, `show` and `runs`."""

from collections.abc import Iterable
from pathlib import Path

from edgestill.export.result import ProfileResult
from edgestill.flows.chain import stage_names, stages_of
from edgestill.flows.config import config_of
from edgestill.flows.outcome import Outcome, Part
from edgestill.flows.report.again import kept_profiles
from edgestill.flows.report.details import changed_settings
from edgestill.flows.stages.results import BUNDLE, BaselinesResult, RankCheckResult, ReportResult
from edgestill.flows.terminal import joined, table
from edgestill.flows.wording.sentences import SUMMARY_COLUMNS, headline, summary_rows, verdict_lines
from edgestill.flows.wording.verdicts import conditions, rank_cells, verdict
from edgestill.flows.wording.worth import worth_lines
from edgestill.pipeline.data.look import DataLook
from edgestill.pipeline.errors import EdgestillError, command, first_line
from edgestill.pipeline.runs.find import list_runs
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.balance import imbalance
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult


def summary(outcome: Outcome) -> str:
    """Closing lines of a run: a sentence, a table, verdicts on formats, cautions, paths of bundle and report."""
    return joined(
        [
            "",
            headline(outcome),
            *worth_lines(outcome.baselines, outcome.tested.worth),
            *table(["", *SUMMARY_COLUMNS], summary_rows(outcome)),
            *verdict_lines(outcome.profiled),
            *_cautions(outcome.cautions),
            f"bundle  {outcome.bundle}",
            f"digest  {outcome.tested.digest}",
            _page(outcome.run, outcome.report),
        ]
    )


def part_summary(part: Part) -> str:
    """Closing lines of a part of a run: its folder, and the commands that go on from it."""
    name = part.run.name
    ways_on = [command(verb, part.run) for verb in ("distill", "export", "resume")]
    return joined(["", *_cautions(part.cautions), f"run  {part.run}", f"{name} goes on by {', '.join(ways_on)}"])


def look_lines(task: Task, look: DataLook) -> str:
    """Table of examples by class and split, with a line for each finding."""
    columns = [task.inputs.unit, *look.counts]
    rows = [(label, *(f"{counts[k]:,}" for counts in look.counts.values())) for k, label in enumerate(task.labels)]
    total = ("all", *(f"{sum(counts):,}" for counts in look.counts.values()))
    findings = [f"{'caution' if finding.is_caution else 'note'}: {finding.sentence}" for finding in look.findings]
    unlike = imbalance(look.counts["train"], task.labels) if task.inputs.has_classes else ""
    findings += [f"caution: {unlike}"] if unlike else []
    return joined(
        [
            f"{task.num_classes} {task.inputs.units} of {task.inputs.described()}",
            *table(columns, [*rows, total]),
            *(findings or ["nothing else was found"]),
        ]
    )


def rank_check_summary(result: RankCheckResult) -> str:
    """Table of each scorer's rank correlation on this task, with a sentence on the configured one."""
    rows = [
        (row.scorer + (" (configured)" if row.scorer == result.configured else ""), *rank_cells(row))
        for row in result.rows
    ]
    columns = ["scorer", "Kendall tau", "95% interval", "students", "no score"]
    notes = [f"note: {note}" for note in result.notes]
    return joined([*table(columns, rows), "", verdict(result), conditions(result), *notes])


def _cautions(cautions: Iterable[str]) -> list[str]:
    return [f"caution: {caution}" for caution in cautions]


def _page(run: Path, page: Path) -> str:
    return f"report  {page}" + ("" if page.exists() else f"  (missing; {command('report', run)} writes it again)")


def show_run(run: RunDir) -> str:
    """A run's stages, a line each, and its files."""
    manifest, config = run.manifest, config_of(run)
    stages = stages_of(config)
    lines = [
        f"{run.root}",
        f"created {manifest.created}, seed {manifest.seed}, config {manifest.config_digest[:12]}",
        *(f"{name}: {values}" for name, values in changed_settings(manifest)),
        "",
    ]
    width = len(str(len(stages)))
    for index, stage in enumerate(stages, start=1):
        record = manifest.stages.get(stage.name)
        if record is None:
            lines.append(f"  {index:>{width}}/{len(stages)} {stage.name:<10}       –")
            continue
        said = stage.sentence(stage.read(run))
        lines.append(f"✓ {index:>{width}}/{len(stages)} {stage.name:<10} {record.seconds:7.1f} s  {said}")
    if len(manifest.stages) < len(stages):
        where = [f"unfinished: {command('resume', run.root)}"]
    elif config.rank_check.only:
        where = rank_check_summary(run.read("rank_check", RankCheckResult)).split("\n")
    else:
        verdicts = verdict_lines(run.read("profile", ProfileResult))
        tested = run.read("report", ReportResult, movable=BUNDLE)
        bundle, page = run.root / tested.bundle, run.root / tested.report
        moved = "" if bundle.exists() else "  (moved away)"
        compared = run.read("baselines", BaselinesResult) if "baselines" in manifest.stages else None
        bundled = [f"bundle  {bundle}{moved}", f"digest  {tested.digest}"]
        where = [*worth_lines(compared, tested.worth), *verdicts, *bundled, _page(run.root, page)]
    return joined([*lines, "", *_cautions((*run.cautions, *kept_profiles(run)[1])), *where])


def show_runs(parent: Path) -> str:
    """All runs below a folder, a row each."""
    paths = list_runs(parent)
    if not paths:
        return f"no runs in {parent}; `edgestill run --preset digits` makes one"
    rows = [(path.name, *_columns(path)) for path in paths]
    return joined(table(["run", "stages", "student", "parameters", "shipped accuracy"], rows)).rstrip()


def _columns(path: Path) -> tuple[str, ...]:
    try:
        run = RunDir.view(path)
        stages = run.manifest.stages
        found = run.read("search", SearchResult) if "search" in stages else None
        played = run.read("tournament", TournamentResult) if "tournament" in stages else None
        names = stage_names(config_of(run))
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
