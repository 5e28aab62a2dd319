"""The report's section on the data: examples by class, findings, and some pictures or texts of each class."""

from typing import Any

from edgestill.flows.report.data import ReportData

_MOST = 30  # classes in the table


def data_look(report: ReportData) -> dict[str, Any] | None:
    """Counts by class and split, findings, and samples; None in a run of an earlier version."""
    found, labels = report.data.look, report.data.task.labels
    if found is None:
        return None
    rows = [
        (label, [f"{found.counts[split][k]:,}" for split in found.counts])
        for k, label in list(enumerate(labels))[:_MOST]
    ]
    return {
        "splits": list(found.counts),
        "rows": rows,
        "more": len(labels) - len(rows),
        "findings": [finding.sentence for finding in found.findings],
        "strips": found.strips,
        "texts": found.texts,
        "input": report.data.task.inputs.described(),
        "unit": report.data.task.inputs.unit,
        "units": report.data.task.inputs.units,
    }
