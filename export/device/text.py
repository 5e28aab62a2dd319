"""Formats a profile as plain text, at most 100 columns wide."""

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from edgestill.export.device.judge import where

_WIDTH = 100
_SHOWN = ("p50_ms", "p90_ms", "p99_ms")


def profile_text(profile: Mapping[str, Any]) -> str:
    """Format a profile: the device, the method, a row for each result, and the warnings."""
    device, runtime, method = profile["device"], profile["runtime"], profile["method"]
    name = f"{device['name']}, " if device["name"] else ""
    memory = f", {device['ram_bytes'] / 1e9:.1f} GB" if device["ram_bytes"] else ""
    lines = [
        f"{name}{device['cpu']}, {device['cores']} cores{memory}; {device['os']}, kernel {device['kernel']}",
        f"{runtime['name']}, {runtime['provider']}; {method['repeats']} fresh process"
        f"{'es' * (method['repeats'] > 1)}, taking {method['duration_s']:g} s together for each row; inputs: "
        f"{method['examples']}",
        "",
        *_table(profile),
        "spread: between the fresh processes' medians",
        "",
        "95 % bounds, if calls are independent:",
        *columns([_bounds(result) for result in profile["results"]]),
        "",
        *(_cold(name, model) for name, model in profile["models"].items()),
        *(_comparison(found) for found in profile["comparisons"]),
        f"energy: {profile['energy']}",
        *(f"warning: {warning}" for warning in profile["warnings"]),
    ]
    return "\n".join(
        wrapped
        for line in map(without_controls, lines)
        for wrapped in textwrap.wrap(line, _WIDTH, subsequent_indent="  ") or [""]
    )


def without_controls(line: str) -> str:
    """Escape unprintable characters: a model's or a device's name must not steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _table(profile: Mapping[str, Any]) -> list[str]:
    percentiles = [p for p in _SHOWN[1:] if any(p in r["summary"]["percentiles"] for r in profile["results"])]
    has_energy = any(result["energy_mj"] is not None for result in profile["results"])
    head = ["model", "batch", "threads", "p50 ms", *(p[:3] + " ms" for p in percentiles), "max ms", "CV"]
    rows = [[*head, "inputs/s", "spread", *(["mJ"] if has_energy else [])]]
    for result in profile["results"]:
        summary = result["summary"]
        given = summary["percentiles"]
        between = result["p50_spread"]
        rows.append([
            _short(result["model"]), str(result["batch"]), str(result["threads"]),
            milliseconds(given.get("p50_ms")),
            *(milliseconds(given.get(p)) for p in percentiles), milliseconds(summary["max_ms"]), f"{summary['cv']:.0%}",
            f"{result['throughput_per_s']:,.0f}", "" if between is None else f"{between:.1%}",
            *([f"{result['energy_mj']:.2f}"] if has_energy and result["energy_mj"] is not None else []),
        ])  # fmt: skip
    return columns(rows)


def _bounds(result: Mapping[str, Any]) -> list[str]:
    found = [
        f"{name.removesuffix('_ms')} [{milliseconds(low)}, {milliseconds(high)}]"
        for name, (low, high) in result["summary"]["bounds"].items()
        if name in _SHOWN
    ]
    return [where(result), *(found or ["too few calls"])]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows if place < len(row)) for place in range(len(rows[0]))]
    aligned = [[cell.rjust(width) for cell, width in zip(row, widths)] for row in rows]  # noqa: B905
    return ["  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip() for row, cells in zip(rows, aligned)]  # noqa: B905


def milliseconds(value: float | None) -> str:
    """Format milliseconds with three or four significant digits, and none below a tenth of a microsecond."""
    if value is None:
        return "–"
    if value < 0.1:
        return f"{value:.4f}"
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:,.1f}"


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def _cold(name: str, model: Mapping[str, Any]) -> str:
    def middle(key: str) -> float | None:
        known = [cold[key] for cold in model["cold"] if cold[key] is not None]
        return statistics.median(known) if known else None

    peak, added = middle("peak_rss_bytes"), middle("added_rss_bytes")
    memory = "not known" if peak is None else f"{peak / 1e6:.0f} MB"
    extra = "" if added is None else f", {added / 1e6:.1f} MB of it the model's"
    return (
        f"{name}: {model['file']}, {model['size_bytes'] / 1e3:,.0f} kB, sha256 {model['sha256'][:12]}; loads in "
        f"{milliseconds(middle('load_ms'))} ms, first call {milliseconds(middle('first_call_ms'))} ms, "
        f"peak memory {memory}{extra}"
    )


def _comparison(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    ratios = found["process_ratios"]
    plural = "s" if found["threads"] > 1 else ""
    return (
        f"{found['model']}: {found['ratio']:.2f} times the speed of {found['against']} [{low:.2f}, {high:.2f}] at "
        f"batch {found['batch']}, {found['threads']} thread{plural}; processes {min(ratios):.2f} to {max(ratios):.2f}"
    )
