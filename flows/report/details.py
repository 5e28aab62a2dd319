"""The report's sections below the first screen: search, tuning, learning curves, latency, provenance."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgestill.distill.result import TuneResult
from edgestill.distill.tunable import TuningRange
from edgestill.export.result import Ratio
from edgestill.flows.report.data import ReportData
from edgestill.flows.report.drawing import charts, scatter
from edgestill.flows.report.drawing.canvas import WINNER, Look, baseline_looks
from edgestill.flows.report.drawing.tuning import importance_bars, slice_of
from edgestill.flows.wording.words import failure_counts, latency_clause
from edgestill.pipeline.figures import listing, significant, size
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.runs.manifest import Manifest, Origin
from edgestill.pipeline.teachers import make_teacher
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.fitness import fitness_name_of
from edgestill.search.result import Candidate, SearchResult

_SLICES = 6  # hyperparameters with a chart of their own


def search(found: SearchResult) -> dict[str, Any]:
    """The scatter (once for a wide page, once for a phone), the table of winner and picks, failures by reason."""
    looks = baseline_looks(list(found.picks))
    values = scatter.selection_values(found)
    same = [name for name, pick in found.picks.items() if pick.architecture == found.winner.architecture]
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for failure in found.failures:
        reasons[f"{failure.scorer}: {failure.type.replace('_', ' ')}: {failure.reason}"].append(failure.architecture)
    return {
        "wide": scatter.search_scatter(found, 1000, 400, with_tips=True),
        "narrow": scatter.search_scatter(found, 360, 320, with_tips=False),
        "has_tips": len(found.candidates) <= scatter.MOST_TIPS,
        "score_name": fitness_name_of(found),
        "looks": looks,
        "winner_look": WINNER,
        "unmet": [name for name, pick in found.picks.items() if pick.architecture not in values],
        "same": f"{listing(same)} would have picked the winner too" if same else "",
        "summary": _search_summary(found),
        "limits": [
            f"{name.removeprefix('max_')} ≤ {limit:,}" for name, limit in found.budget.model_dump().items() if limit
        ],
        "rows": [
            _search_row("winner", found.winner, found.scorer, WINNER, f"first of {len(values):,}"),
            *(_search_row(n, p, n, looks[n], _rank(p, found, values)) for n, p in found.picks.items()),
        ],
        "failures": dict(reasons),
    }


def tuning(tuned: TuneResult, configured: dict[str, float], ranges: Mapping[str, TuningRange]) -> dict[str, Any]:
    """The history, the best hyperparameters beside the configured ones, their importances and slices."""
    if not tuned.enabled:
        return {"enabled": False}
    counts = {state: sum(t.state == state for t in tuned.trials) for state in ("COMPLETE", "PRUNED", "FAIL")}
    return {
        "enabled": True,
        "chart": charts.tuning_history(tuned),
        "best_value": tuned.best_value,
        "best_trial": tuned.best_trial,
        "counts": counts,
        "total": len(tuned.trials),
        "rows": [
            (name, f"{value:.3g}", f"{configured[name]:.3g}" if name in configured else "–")
            for name, value in tuned.best.items()
        ],
        **_influences(tuned, ranges),
        "reasons": [(t.number, t.reason or "no reason recorded") for t in tuned.trials if t.state == "FAIL"],
    }


def _influences(tuned: TuneResult, ranges: Mapping[str, TuningRange]) -> dict[str, Any]:
    """Importance of each hyperparameter, and a slice along each of the most important; empty where nothing is told."""
    from edgestill.distill.importance import importances

    shares: dict[str, float] = {}
    with nicety("the importances could not be told", []):
        shares = importances(tuned, ranges)
    return {
        "importances": importance_bars(shares) if shares else "",
        "shares": list(shares.items()),
        "slices": [
            (name, slice_of(tuned.trials, name, is_log=ranges[name].scale == "log", best=tuned.best_trial))
            for name in list(shares)[:_SLICES]
        ],
    }


def learning(report: ReportData) -> dict[str, Any]:
    """The student's curves, and the teacher's where it was trained in this run."""
    distilled, teacher = report.distilled, report.teacher
    return {
        "student": _curves(distilled.curve, distilled.best_epoch, "student", teacher.validation.accuracy),
        "teacher": _curves(teacher.curve, teacher.best_epoch, "teacher", None),
        "teacher_weights": make_teacher(report.config.teacher).source_name or "a file",
        "stopped_early": distilled.stopped_early,
        "validation": distilled.validation,
        "teacher_validation": teacher.validation,
        "settings": [
            *((f"method {m.get('name')}", _settings(m)) for m in distilled.methods),
            ("learning rate", f"{distilled.learning_rate:.3g}"),
            ("weight decay", f"{distilled.weight_decay:.3g}"),
            ("teacher's outputs", "computed once" if distilled.teacher_cached else "computed for every batch"),
        ],
    }


def latency(report: ReportData) -> dict[str, Any]:
    """The samples' distribution, and the conditions of the measurement."""
    profiled, samples = report.profiled, report.samples_ms
    models = {"teacher": profiled.teacher, "student": profiled.student}
    medians = {name: model.latency.p50_ms for name, model in models.items() if model is not None}
    used = profiled.student.latency
    until = max(charts.shown_until_ms(found) for found in samples.values())
    hidden = sum(value > until for found in samples.values() for value in found)
    return {
        "chart": charts.latency_histogram(samples, medians),
        "medians": {name: significant(value) for name, value in medians.items()},
        "hidden": f"{hidden:,} slower calls, up to {significant(max(map(max, samples.values())))} ms, are off the chart"
        if hidden
        else "",
        "facts": [
            *([] if profiled.speedup is None else [("speed-up", _ratio(profiled.speedup))]),
            ("samples", " and ".join(f"{len(found):,} of the {name}'s file" for name, found in samples.items())),
            ("runtime", f"{used.runtime}, {used.provider}"),
            ("threads", str(used.threads)),
            ("batch", str(used.batch)),
            ("machine", _machine(report)),
            ("load before", _load(profiled.load_before)),
        ],
    }


def _ratio(found: Ratio) -> str:
    low, high = found.interval
    return f"{found.value:.3f} (median of the turns' ratios), 95% interval {low:.3f} to {high:.3f}"


def _machine(report: ReportData) -> str:
    profiled = report.profiled
    if profiled.targets:
        return f"{profiled.targets[0].name}: {profiled.cpu}"
    return f"{profiled.cpu}, {report.manifest.machine.get('cores', '?')} cores"


def _load(average: float | None) -> str:
    return "not known" if average is None else f"{average:.2f} (1-minute average)"


def provenance(report: ReportData) -> dict[str, Any]:
    """Facts for getting these figures again."""
    manifest, task = report.manifest, report.data.task
    return {
        "earlier": [
            (", ".join(origin.stages), ", ".join(_differences(origin, manifest))) for origin in manifest.earlier
        ],
        "facts": [
            ("run", manifest.name),
            ("created", manifest.created),
            ("seed", str(manifest.seed)),
            ("configuration", manifest.config_digest),
            *changed_settings(manifest),
            ("git commit", manifest.git_commit or "none: not run from a git checkout"),
            ("shipped file", report.profiled.student.sha256),
            *((name.replace("_", " "), str(value)) for name, value in manifest.machine.items()),
        ],
        "versions": list(manifest.versions.items()),
        "splits": [(n, f"{count:,}", report.data.digests.get(n, "–")) for n, count in report.data.sizes.items()],
        "labels": task.labels,
        "units": task.inputs.units,
        "input": task.inputs.described(),
        "tuned": report.tuned.enabled,
    }


def changed_settings(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Settings changed while the run was going on, and the stages done before."""
    for change in manifest.changes:
        for key, values in change.settings.items():
            yield f"changed: {key}", f"{values}, after {', '.join(change.stages) or 'no stage'}"


def _differences(earlier: Origin, later: Origin) -> Iterator[str]:
    """List versions, machine facts and commit of an earlier part of the run where they differ from the rest."""
    before, now = ({**o.versions, **o.machine, "commit": o.git_commit or "none"} for o in (earlier, later))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name.replace('_', ' ')} {before.get(name, 'not there')}"


def _search_summary(found: SearchResult) -> str:
    how = "every one" if found.exhaustive else f"{found.evaluated:,}"
    by = found.scorer if found.exhaustive else f"{found.scorer}, by {found.strategy},"
    count = len(found.failures)
    failed = f" ({count:,} scoring{'s' if count > 1 else ''} failed: {failure_counts(found.failures)})" if count else ""
    return (
        f"{by} looked at {how} of the {found.space} space's {found.space_size:,} students{failed}"
        f"{_winner_figures(found)}"
    )


def _winner_figures(found: SearchResult) -> str:
    """The winner's file size, peak activations and latency, as far as known."""
    cost = found.winner.cost
    figures = [
        f"at most {size(cost.size_bytes)} as a file" if cost.size_bytes is not None else "",
        f"{size(cost.peak_activation_bytes)} of activations at its peak"
        if cost.peak_activation_bytes is not None
        else "",
        f"latency{latency_clause(found.latency).removeprefix(',')}" if found.latency is not None else "",
    ]
    known = [figure for figure in figures if figure]
    return f"; the winner: {', '.join(known)}" if known else ""


def _search_row(name: str, candidate: Candidate, scorer: str, look: Look, place: str) -> dict[str, Any]:
    value, spread = candidate.scores[scorer], candidate.std.get(scorer, 0.0)
    score = significant(value, 4) + (f" ± {significant(spread, 2)}" if spread else "")
    return {"name": name, "look": look, "candidate": candidate, "score": f"{scorer} {score}", "place": place}


def _rank(pick: Candidate, found: SearchResult, values: dict[str, float]) -> str:
    if pick.architecture == found.winner.architecture:
        return "the same student"
    if pick.architecture not in values:
        return "not met by the winner's search"
    better = sum(value > values[pick.architecture] for value in values.values())
    return f"{better + 1:,} of {len(values):,}"


def _curves(
    curve: Sequence[EpochRecord], best_epoch: int | None, role: str, teacher_accuracy: float | None
) -> dict[str, Any] | None:
    if not curve:
        return None
    accuracies = [record.validation_accuracy for record in curve]
    floor = charts.accuracy_floor(accuracies, max([*accuracies, teacher_accuracy or 0.0]))
    return {
        "accuracy": charts.accuracy_curve(curve, best_epoch, role, teacher_accuracy),
        "loss": charts.loss_curve(curve, role),
        "terms": charts.term_looks(curve),
        "best_epoch": best_epoch,
        "epochs": len(curve),
        "below": sum(accuracy < floor for accuracy in accuracies),
        "floor": floor,
    }


def _settings(method: dict[str, object]) -> str:
    values = [
        f"{name} {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in method.items()
        if name != "name"
    ]
    return ", ".join(values) or "no hyperparameters"
