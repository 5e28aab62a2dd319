"""The report's table of targets: each file on each device, and the device's default file."""

from typing import Any

from edgestill.export.result import OnTarget, ProfileResult, Verdict
from edgestill.pipeline.figures import significant

_NOTHING = "–"


def targets(profiled: ProfileResult) -> dict[str, Any] | None:
    """A row for each format on each target, by that device's own samples; None for a run without targets."""
    if not profiled.targets:
        return None
    return {
        "rows": [row for target in profiled.targets for row in _rows(target)],
        "devices": [
            (
                target.name,
                f"{target.device}, {target.architecture or 'unknown architecture'}, {target.runtime}, "
                f"{target.threads} thread{'s' if target.threads > 1 else ''}",
            )
            for target in profiled.targets
        ],
        "notes": [f"{target.name}: {note}" for target in profiled.targets for note in target.notes]
        + [f"{target.name}: {target.why_none}" for target in profiled.targets if target.why_none],
        "first": profiled.targets[0].name,
    }


def _rows(target: OnTarget) -> list[dict[str, Any]]:
    verdicts = {verdict.format: verdict for verdict in target.verdicts}
    return [
        {
            "target": target.name,
            "format": name,
            "is_default": name == target.default,
            "cells": [
                _ms(latency.summary.get("p50_ms")),
                _ms(latency.summary.get("p90_ms")),
                _over_fp32(verdicts.get(name)),
                verdicts[name].word if name in verdicts else _NOTHING,
            ],
        }
        for name, latency in target.latencies.items()
    ]


def _over_fp32(verdict: Verdict | None) -> str:
    if verdict is None or verdict.over_fp32 is None:
        return _NOTHING
    low, high = (significant(end) for end in verdict.over_fp32.interval)
    return f"{significant(verdict.over_fp32.value)}× [{low}, {high}]".replace(" ", "\N{NO-BREAK SPACE}")


def _ms(value: float | int | None) -> str:
    return _NOTHING if value is None else f"{significant(float(value))} ms"
