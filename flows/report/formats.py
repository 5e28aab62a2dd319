"""The report's table of formats: the figures of each file of the student, and why it ships or not."""

from typing import Any

from edgestill.export.result import ExportedModel, Ratio
from edgestill.flows.report.data import ReportData
from edgestill.pipeline.figures import significant, size

_NOTHING = "–"
COLUMNS = ("bytes", "validation", "test", "p50", "p90", "against the teacher", "against fp32")


def formats(report: ReportData) -> dict[str, Any]:
    """A row for the teacher's file and for each configured format, and the gate in a sentence."""
    profiled, gate = report.profiled, report.config.export.gate
    unit = "" if report.config.distill.training.metric == "accuracy" else " of mean recall"
    file = report.tested.teacher_file
    teacher = profiled.teacher
    rows = [] if teacher is None else [_row("teacher, fp32", teacher, file.accuracy if file else None, None, None)]
    for verdict in profiled.verdicts:
        name = verdict.format
        if name not in profiled.formats:
            rows.append({"name": name, "cells": [_NOTHING] * len(COLUMNS), "verdict": verdict.word})
            continue
        tested = report.tested.formats.get(name)
        row = _row(
            name,
            profiled.formats[name],
            tested.accuracy if tested else None,
            profiled.speedups.get(name),
            verdict.over_fp32,
        )
        rows.append({**row, "verdict": verdict.word})
    return {
        "columns": COLUMNS,
        "rows": rows,
        "reasons": [
            verdict.sentence for verdict in profiled.verdicts if verdict.format != "fp32" or not verdict.shipped
        ],
        "default": profiled.default,
        "validation_n": f"{report.distilled.validation.n:,}",
        "test_n": f"{report.tested.shipped.n:,}",
        "gate": (
            f"A format ships beside fp32 if the 95% interval of its speed lies above {gate.min_speedup:g} times "
            f"fp32's, or its file is {gate.min_shrink:g} times smaller and surely not {gate.max_slowdown:g} times "
            f"slower; if it loses at most {100 * gate.max_accuracy_drop:g} points{unit} on validation; and if it "
            "changed anything at all."
        ),
        "calibrations": [
            (name, model.variant, ", ".join(f"{method} {accuracy:.2%}" for method, accuracy in model.tried.items()))
            for name, model in profiled.formats.items()
            if model.variant
        ],
        "parts": [(name, _parts(model)) for name, model in profiled.formats.items() if model.latency.parts],
    }


def _parts(model: ExportedModel) -> str:
    """Medians of a call's parts, such as `copy in 0.012 ms, execute 0.10 ms, copy out 0.008 ms`."""
    medians = {name: summary.get("p50_ms") for name, summary in model.latency.parts.items()}
    return ", ".join(
        f"{name.replace('_', ' ')} {significant(float(median))} ms" for name, median in medians.items() if median
    )


def _row(
    name: str, model: ExportedModel, tested: float | None, over_teacher: Ratio | None, over_fp32: Ratio | None
) -> dict[str, Any]:
    summary = model.latency.summary
    p90 = summary.get("p90_ms")
    cells = [
        size(model.size_bytes),
        _NOTHING if model.validation is None else model.validation.words,
        _NOTHING if tested is None else f"{tested:.2%}",
        f"{significant(model.latency.p50_ms)} ms",
        _NOTHING if p90 is None else f"{significant(float(p90))} ms",
        _ratio(over_teacher),
        _ratio(over_fp32),
    ]
    return {"name": name, "cells": cells, "verdict": ""}


def _ratio(ratio: Ratio | None) -> str:
    """A ratio of speeds with its interval, such as `2.04× [2.00, 2.08]`."""
    if ratio is None:
        return _NOTHING
    low, high = (significant(end) for end in ratio.interval)
    return f"{significant(ratio.value)}× [{low}, {high}]".replace(" ", "\N{NO-BREAK SPACE}")
