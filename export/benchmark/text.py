"""A benchmark as a table of text."""

from edgestill.export.benchmark.result import Benchmark, Row
from edgestill.pipeline.figures import interval, milliseconds, significant, size

_HEAD = (
    "format", "runtime", "size", "accuracy", "agrees with fp32", "p50", "p90", "times fp32's speed", "memory",
    "first answer",
)  # fmt: skip
_NOTHING = "–"


def benchmark_text(found: Benchmark) -> str:
    """Return the table, with the machine above it and what was left out below."""
    rows = [_HEAD, *(_cells(row) for row in found.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    sides = ["<", "<", *[">"] * (len(_HEAD) - 2)]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    head = f"{found.bundle} on {found.target}: {found.cpu}, {threads}, batch 1; {found.inputs}"
    return "\n".join([head, *lines, *(f"{name} is left out: {why}" for name, why in found.left_out.items())])


def _cells(row: Row) -> tuple[str, ...]:
    agreed, over = row.agreement, row.over_fp32
    return (
        row.format,
        row.runtime,
        size(row.size_bytes),
        _NOTHING if row.accuracy is None else f"{row.accuracy:.2%}",
        _NOTHING if agreed is None else f"{agreed.share:.1%} {_percent(agreed.interval)}",
        milliseconds(row.p50_ms),
        _NOTHING if row.p90_ms is None else milliseconds(row.p90_ms),
        _NOTHING if over is None else f"{significant(over.value)} {interval(*over.interval)}",
        size(row.memory_bytes),
        milliseconds(row.first_answer_ms),
    )


def _percent(ends: tuple[float, float]) -> str:
    return interval(100 * ends[0], 100 * ends[1])
