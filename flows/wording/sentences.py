"""The closing words on a finished run, shared by the terminal, `show` and Prefect's artifact."""

from edgestill.export.result import ExportedModel, ProfileResult
from edgestill.flows.outcome import Outcome
from edgestill.flows.wording.standing import is_comparable, standing
from edgestill.flows.wording.words import accuracy_claim, call_claim, size_claim, speed_claim
from edgestill.pipeline.networks.cost import Cost

SUMMARY_COLUMNS = ("test accuracy", "parameters", "FLOPs", "file, kB", "p50, ms")


def summary_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """Teacher, student and shipped file, a row each: a name, then a cell for each of SUMMARY_COLUMNS."""
    tested, files = outcome.tested, outcome.profiled

    def row(name: str, accuracy: float, *cells: str) -> tuple[str, ...]:
        return (name, f"{accuracy:.2%}", *cells)

    def counts(cost: Cost | None) -> tuple[str, str]:
        return ("", "") if cost is None else (f"{cost.params:,}", f"{cost.flops:,}")

    def measured(model: ExportedModel | None) -> tuple[str, str]:
        return ("", "") if model is None else (f"{model.size_bytes / 1e3:,.0f}", f"{model.latency.p50_ms:.3f}")

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
    taught_by, ratio = outcome.teacher.cost, files.speedup
    size = size_claim(None if taught_by is None else taught_by.params, outcome.distilled.cost.params)
    speed = call_claim(files.student.latency.p50_ms) if ratio is None else speed_claim(*ratio.both)
    claims = [size.words, speed.words]
    if is_comparable(tested):
        accuracy = accuracy_claim(tested.teacher.accuracy, tested.shipped.accuracy)
        claims.append(f"{accuracy.words} on {tested.shipped.n} test examples")
    return f"{', '.join(claims)}, against the teacher{standing(tested)}"
