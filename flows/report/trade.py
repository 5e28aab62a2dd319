"""The report's section on the trade between accuracy, latency and size."""

from typing import Any

from edgestill.flows.report.data import ReportData
from edgestill.flows.report.drawing.trade import TradePoint, dominating, looks_of, tip_of, trade_chart

_HERE = "this machine"


def trade(report: ReportData) -> dict[str, Any] | None:
    """The chart and its words; None where there is nothing to trade, with one format on one target."""
    points, split = trade_points(report)
    if len(points) < 2:
        return None
    looks = looks_of(points)
    return {
        "chart": trade_chart(points, 760, 380),
        "split": split,
        "targets": list(looks.items()) if len(looks) > 1 else [],
        "dominated": [tip_of(point, points) for point in points if dominating(point, points) is not None],
    }


def trade_points(report: ReportData) -> tuple[list[TradePoint], str]:
    """Return a point for each format on each target, and the split that the accuracies are of.

    Accuracies are of the test split if every file has one, else of validation.
    """
    profiled, tested = report.profiled, report.tested.formats
    on_test = all(name in tested for name in profiled.formats)
    accuracy = {}
    for name, model in profiled.formats.items():
        found = tested[name] if on_test else model.validation
        if found is not None:
            accuracy[name] = found.accuracy
    latencies = {target.name: target.latencies for target in profiled.targets} or {
        _HERE: {name: model.latency for name, model in profiled.formats.items()}
    }
    points = [
        TradePoint(target, name, accuracy[name], latency.p50_ms, profiled.formats[name].size_bytes)
        for target, formats in latencies.items()
        for name, latency in formats.items()
        if name in accuracy
    ]
    return points, "test" if on_test else "validation"
