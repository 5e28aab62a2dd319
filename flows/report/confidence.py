"""The report's sections on the test split seen closely: confidence, disagreements, shifted inputs."""

from collections.abc import Sequence
from typing import Any

from edgestill.export.tested.result import Case, Disagreement, Examined, Opinion, Robustness, ShiftedAccuracy
from edgestill.flows.report.data import ReportData
from edgestill.flows.report.drawing.confidence import confidence_histogram, reliability_diagram
from edgestill.pipeline.figures import listing, significant
from edgestill.pipeline.training.fidelity import Fidelity

_CASES: dict[Case, str] = {
    "teacher": "The teacher is right, the shipped file is not",
    "student": "The shipped file is right, the teacher is not",
    "neither": "Both are wrong, in different ways",
}
_WIDE = 0.05  # difference of mean confidence and accuracy worth a word


def confidence(report: ReportData) -> dict[str, Any] | None:
    """Reliability diagram and histogram; None for a run of an older version."""
    found = report.tested.examined
    if found is None:
        return None
    roles = {"teacher": found.teacher, "student": found.student}
    return {
        "diagram": reliability_diagram(roles),
        "histogram": confidence_histogram(roles),
        "errors": {role: significant(one.error) for role, one in roles.items()},
        "bins": len(found.student.counts),
        "n": f"{found.student.n:,}",
        "verdict": _verdict(found),
    }


def _verdict(found: Examined) -> str:
    """How the shipped file's confidence is to be taken, in a sentence."""
    student = found.student
    sure, right = sum(student.confidences) / student.n, sum(student.hits) / student.n
    says = f"it is {sure:.1%} sure on average, and right on {right:.1%}"
    if sure > right + _WIDE:
        return f"The shipped file is too sure of itself: {says}. Do not read its probabilities as chances."
    if sure < right - _WIDE:
        return f"The shipped file is right more often than it says: {says}."
    return f"The shipped file's confidence can be taken at its word on average: {says}."


def disagreements(report: ReportData) -> dict[str, Any] | None:
    """Counts by who is right, and some examples of each case; None for a run of an older version."""
    found, labels, about = report.tested.examined, report.data.task.labels, report.data.task.inputs
    if found is None:
        return None
    counts, n = found.disagreements.counts, found.student.n
    differing = sum(counts.values())
    return {
        "fidelity": None if found.fidelity is None else fidelity_sentences(found.fidelity, about.units),
        "sentence": f"They answer differently on {differing:,} of {n:,} test examples ({differing / n:.1%})",
        "cases": [
            {
                "title": title,
                "count": f"{counts.get(case, 0):,}",
                "examples": [_example(one, labels, about.unit) for one in found.disagreements.shown.get(case, ())],
            }
            for case, title in _CASES.items()
            if counts.get(case)
        ],
    }


def fidelity_sentences(found: Fidelity, units: str = "classes") -> list[str]:
    """How far the shipped file says what the teacher says, and how far that is right."""
    where = {
        "where the teacher is right": found.agreement_where_teacher_right,
        "where it is wrong": found.agreement_where_teacher_wrong,
    }
    shares = [f"{share:.1%} {name}" for name, share in where.items() if share is not None]
    return [
        f"The shipped file gives the teacher's answer on {found.agreement:.1%} of the examples: {listing(shares)}.",
        f"Its {units} stand in the teacher's order with a mean rank correlation of {found.rank_correlation:.2f}; the "
        f"mean KL divergence from the teacher is {significant(found.kl)} nats.",
    ]


def _example(one: Disagreement, labels: Sequence[str], unit: str) -> dict[str, Any]:
    def said(opinion: Opinion) -> str:
        return f"{labels[opinion.answer]} ({opinion.confidence:.0%})"

    return {
        "image": one.image,
        "text": one.text,
        "alt": f"test example {one.index}, of {unit} {labels[one.truth]}",
        "rows": [("true", labels[one.truth]), ("teacher", said(one.teacher)), ("student", said(one.student))],
    }


def robustness(report: ReportData) -> dict[str, Any] | None:
    """A row for each shift and strength: both accuracies, and both losses against the same examples as they are."""
    found = None if report.tested.examined is None else report.tested.examined.robustness
    if found is None:
        return None
    return {
        "n": f"{found.n:,}",
        "left_out": f"{found.left_out[:1].upper()}{found.left_out[1:]}." if found.left_out else "",
        "clean": None if found.clean is None else [f"{found.clean.teacher:.1%}", f"{found.clean.student:.1%}"],
        "rows": _rows(found),
        "verdict": _worst(found),
    }


def _rows(found: Robustness) -> list[dict[str, Any]]:
    if found.clean is None:
        return []
    clean = found.clean
    return [
        {
            "shift": row.shift,
            "strength": row.strength,
            "cells": [
                (f"{row.teacher:.1%}", _points(row.teacher - clean.teacher)),
                (f"{row.student:.1%}", _points(row.student - clean.student)),
            ],
            "heats": [f"{max(0.0, 100 * loss):.0f}%" for loss in _losses(row, clean)],
        }
        for row in found.rows
    ]


def _losses(row: ShiftedAccuracy, clean: ShiftedAccuracy) -> tuple[float, float]:
    return clean.teacher - row.teacher, clean.student - row.student


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")


def _worst(found: Robustness) -> str:
    """The shift that costs the shipped file most beyond what it costs the teacher, in a sentence."""
    if found.clean is None or not found.rows:
        return ""
    clean = found.clean
    beyond = [(student - teacher, row) for row in found.rows for teacher, student in (_losses(row, clean),)]
    most, row = max(beyond, key=lambda pair: pair[0])
    if most <= 0.02:
        return "No shift costs the shipped file more than 2 points beyond what it costs the teacher."
    return (
        f"Most beyond the teacher's loss is lost to {row.shift} ({row.strength}): {100 * most:.1f} points more than "
        "the teacher loses."
    )
