"""The report's section on the worth of teacher and search."""

from typing import Any

from edgestill.flows.report.data import ReportData
from edgestill.flows.wording.worth import worth_rows, worth_sentences


def worth(report: ReportData) -> dict[str, Any] | None:
    """The sentence, its conditions, and a row for each arm; None without baselines."""
    found, tested = report.baselines, report.tested.worth
    if found is None or tested is None:
        return None
    sentence, *conditions = worth_sentences(report.results, tested)
    is_balanced = tested.metric == "balanced_accuracy"
    rows = worth_rows(found, tested)
    return {"sentence": sentence, "conditions": conditions, "rows": rows, "is_balanced": is_balanced}
