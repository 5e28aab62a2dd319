"""The report's section on the classes: recall and precision of each, and which are taken for which."""

from collections.abc import Sequence
from typing import Any

from edgestill.flows.report.data import ReportData
from edgestill.pipeline.training.confusion import Confusion

_MOST = 20  # classes in a table, and pairs in a list
_HEAD = 12  # characters of a class name above a column


def classes(report: ReportData) -> dict[str, Any] | None:
    """Figures of the shipped file by class on the test split; None of tokens, and for a run of an older version."""
    found, teacher, labels = report.tested.confusion, report.tested.teacher_confusion, report.data.task.labels
    if found is None or found.unit != "class" or found.num_classes != len(labels):
        return None
    order = sorted(range(len(labels)), key=lambda k: (found.recall(k) is None, found.recall(k), k))
    shown = sorted(order[:_MOST]) if len(labels) > _MOST else range(len(labels))
    return {
        "rows": [_row(k, labels[k], found, teacher) for k in shown],
        "left_out": f"{len(labels) - _MOST:,}" if len(labels) > _MOST else "",
        "matrix": _matrix(found, labels) if len(labels) <= _MOST else None,
        "pairs": _pairs(found, labels),
        "default": report.profiled.default,
        "n": f"{found.n:,}",
        "majority": f"{found.majority:.2%}",
        "mean_recall": f"{found.balanced_accuracy:.2%}",
    }


def _row(number: int, label: str, found: Confusion, teacher: Confusion | None) -> dict[str, Any]:
    return {
        "label": label,
        "is_weak": number in found.weak,
        "cells": [
            f"{int(found.counts[number]):,}",
            _share(found.recall(number)),
            _share(found.precision(number)),
            _share(None if teacher is None else teacher.recall(number)),
        ],
    }


def _matrix(found: Confusion, labels: Sequence[str]) -> dict[str, Any]:
    """Rows of (label, cells); a cell is its count, its share of the class in percent, and if it is right."""
    counts = {(truth, answer): count for truth, answer, count in found.cells}

    def cell(truth: int, answer: int) -> dict[str, Any]:
        count = counts.get((truth, answer), 0)
        share = 100 * count / max(int(found.counts[truth]), 1)
        return {"count": count or "", "heat": f"{share:.0f}%", "is_right": truth == answer}

    return {
        "heads": [(label, label if len(label) <= _HEAD else f"{label[: _HEAD - 1]}…") for label in labels],
        "rows": [(labels[k], [cell(k, answer) for answer in range(len(labels))]) for k in range(len(labels))],
    }


def _pairs(found: Confusion, labels: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """The most frequent mistakes: class, answer, examples, and their share of the class."""
    wrong = sorted((-count, truth, answer) for truth, answer, count in found.cells if truth != answer)
    return [
        (labels[truth], labels[answer], f"{-count:,}", f"{-count / int(found.counts[truth]):.1%}")
        for count, truth, answer in wrong[:_MOST]
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
