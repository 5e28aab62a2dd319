"""One line on each stage's result, shared by the terminal, the logs and the report."""

from functools import singledispatch

from edgestill.distill.result import DistillResult, PruneResult, TuneResult
from edgestill.export.result import ConvertResult, ExportedModel, ProfileResult
from edgestill.flows.delivery import ReportResult
from edgestill.flows.outcome import Outcome
from edgestill.flows.quantization import QatResult
from edgestill.flows.rank_check import RankCheckResult
from edgestill.flows.stage import DataResult
from edgestill.flows.verdicts import lead_words, verdict
from edgestill.flows.words import accuracy_claim, failure_counts, listing, significant, size_claim, speed_claim
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.result import SearchResult, WinnerLatency
from edgestill.search.tournament import TournamentResult


@singledispatch
def sentence(result: object) -> str:
    """One line about a stage's result."""
    raise TypeError(f"no sentence for {type(result).__name__}")


@sentence.register
def _(result: DataResult) -> str:
    sizes = ", ".join(f"{count:,} {name}" for name, count in result.sizes.items())
    return f"{result.task.num_classes} classes of {result.task.inputs.described()}: {sizes}"


@sentence.register
def _(result: TeacherResult) -> str:
    how = f"trained, best at epoch {result.best_epoch}" if result.trained_here else "loaded"
    return f"{how}; {result.validation.accuracy:.2%} on validation, {result.cost.params:,} parameters"


@sentence.register
def _(result: SearchResult) -> str:
    own = [failure for failure in result.failures if failure.scorer in (result.scorer, "cost")]
    failed = f", {len(own)} failed ({failure_counts(own)})" if own else ""
    return (
        f"{result.winner.architecture} of {result.evaluated} scored{failed}; "
        f"{result.winner.cost.params:,} parameters, {result.winner.cost.flops:,} FLOPs{latency_clause(result.latency)}"
    )


def latency_clause(latency: WinnerLatency | None) -> str:
    """Clause on latency, such as `, predicted 2.10 ms ± 8%, measured 2.21 ms`; empty if the budget has no limit."""
    if latency is None:
        return ""
    predicted, error, measured = latency.predicted_ms, latency.predicted_error, latency.measured_ms
    found = "" if predicted is None else f", predicted {significant(predicted)} ms ± {error or 0:.0%}"
    if measured is not None:
        return f"{found}, measured {significant(measured)} ms"
    return f"{found}, not measured: the target is another machine"


@sentence.register
def _(result: TournamentResult) -> str:
    if not result.enabled:
        return "off"
    ahead = f", {' and '.join(map(lead_words, result.leads))}" if result.leads else ""
    change = f"changed {result.change}" if result.changed else f"kept {result.winner.architecture}"
    rounds = f"{len(result.entrants)} students, {result.epochs} epochs" if result.rungs else "nothing to decide"
    failed = sum(entrant.failure is not None for entrant in result.entrants)
    return f"{change}{ahead}; {rounds}{f', {failed} failed' if failed else ''}"


@sentence.register
def _(result: RankCheckResult) -> str:
    return verdict(result)


@sentence.register
def _(result: TuneResult) -> str:
    if not result.enabled:
        return "off"
    pruned = sum(trial.state == "PRUNED" for trial in result.trials)
    best = ", ".join(f"{name.split('.')[-1]} {value:.3g}" for name, value in result.best.items())
    return f"{result.best_value:.2%} on validation with {best}; {len(result.trials)} trials, {pruned} pruned"


@sentence.register
def _(result: DistillResult) -> str:
    stopped = ", stopped early" if result.stopped_early else ""
    return (
        f"{result.validation.accuracy:.2%} on validation at epoch {result.best_epoch} of {len(result.curve)}{stopped}"
    )


@sentence.register
def _(result: PruneResult) -> str:
    if result.refused is not None or result.cost is None or result.pruned is None or result.tuned is None:
        return f"not pruned: {result.refused}; the distilled student ships"
    rounds = f" in {result.rounds} rounds" if result.rounds > 1 else ""
    return (
        f"{result.cost.params / result.cost_before.params:.1%} of the parameters by {result.method}{rounds}; on "
        f"validation {result.before.accuracy:.2%}, pruned {result.pruned.accuracy:.2%}, fine-tuned "
        f"{result.tuned.accuracy:.2%} at epoch {result.best_epoch} of {len(result.curve)}"
    )


@sentence.register
def _(result: ConvertResult) -> str:
    parity = result.student.parity
    others = "".join(f", {name} {model.size_bytes / 1e3:,.0f} kB" for name, model in result.others.items())
    absent = "".join(f"; no {found.format}" for found in result.absent)
    return (
        f"{result.student.size_bytes / 1e3:,.0f} kB ONNX (teacher {result.teacher.size_bytes / 1e3:,.0f} kB){others}"
        f"{absent}; logits within {parity.max_abs_difference:.1e} of torch on {parity.n:,} inputs"
    )


@sentence.register
def _(result: QatResult) -> str:
    if not result.formats:
        return f"not needed: no INT8 file loses more than {100 * result.allowed:g} points on validation"
    if result.refused is not None:
        return f"not done: {result.refused}"
    parts = []
    for name, found in result.formats.items():
        after = f"no file ({found.reason})" if found.after is None else f"{found.after.accuracy:.2%}"
        verdict = f"{found.kept} is kept and {'passes' if found.passes else 'still misses'} the gate"
        parts.append(f"{name} {found.before.accuracy:.2%} before, {after} after: {verdict}")
    return f"fp32 {result.fp32.accuracy:.2%} on validation, {'; '.join(parts)}"


@sentence.register
def _(result: ProfileResult) -> str:
    return (
        f"{result.default} {result.student.latency.p50_ms:.3f} ms against the teacher's "
        f"{result.teacher.latency.p50_ms:.3f} ms: {speed_claim(result.speedup, result.speedup_interval).words}; "
        f"{listing(list(result.shipped))} {'ships' if len(result.shipped) == 1 else 'ship'}"
    )


@sentence.register
def _(result: ReportResult) -> str:
    return (
        f"shipped file {result.shipped.accuracy:.2%} on {result.shipped.n} test examples, "
        f"teacher {result.teacher.accuracy:.2%}"
    )


SUMMARY_COLUMNS = ("test accuracy", "parameters", "FLOPs", "file, kB", "p50, ms")


def summary_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """Teacher, student and shipped file, a row each: a name, then a cell for each of SUMMARY_COLUMNS."""
    tested, files = outcome.tested, outcome.profiled

    def row(name: str, accuracy: float, *cells: str) -> tuple[str, ...]:
        return (name, f"{accuracy:.2%}", *cells)

    def counts(cost: Cost) -> tuple[str, str]:
        return f"{cost.params:,}", f"{cost.flops:,}"

    def measured(model: ExportedModel) -> tuple[str, str]:
        return f"{model.size_bytes / 1e3:,.0f}", f"{model.latency.p50_ms:.3f}"

    teacher, student = outcome.teacher.cost, outcome.distilled.cost
    return [
        row("teacher", tested.teacher.accuracy, *counts(teacher), *measured(files.teacher)),
        row("student", tested.student.accuracy, *counts(student), "", ""),
        row(f"shipped ({files.default})", tested.shipped.accuracy, *counts(student), *measured(files.student)),
    ]


def verdict_lines(result: ProfileResult) -> list[str]:
    """Sentences on each format: if it ships, and why (fp32 only if it does not); then the limits exceeded."""
    lines = [v.sentence for v in result.verdicts if v.format != "fp32" or not v.shipped]
    return [*lines, *(f"over budget: {clause}" for clause in result.over_budget)]


def headline(outcome: Outcome) -> str:
    """The run in one sentence."""
    tested, files = outcome.tested, outcome.profiled
    size = size_claim(outcome.teacher.cost.params, outcome.distilled.cost.params)
    speed = speed_claim(files.speedup, files.speedup_interval)
    accuracy = accuracy_claim(tested.teacher.accuracy, tested.shipped.accuracy)
    return f"{size.words}, {speed.words}, {accuracy.words} on {tested.shipped.n} test examples, against the teacher"
