"""A benchmark as a table of text."""

from collections.abc import Sequence

from edgestill.export.benchmark.result import Benchmark, Row
from edgestill.pipeline.figures import interval, milliseconds, significant, size

_HEAD = (
    "format", "runtime", "size", "accuracy", "agrees with fp32", "p50", "p90", "times fp32's speed", "memory",
    "first answer",
)  # fmt: skip
_NOTHING = "–"


def benchmark_text(found: Benchmark) -> str:
    """Return the table, with the machine above it and what was left out below."""
    lines = _table([_HEAD, *(_cells(row) for row in found.rows)])
    return "\n".join([_machine(found), *lines, *_left_out(found, "")])


def benchmarks_text(found: Sequence[Benchmark]) -> str:
    """Return one table of all targets, with the machines above it and what was left out below."""
    rows = [(one.target, *_cells(row)) for one in found for row in one.rows]
    left_out = [line for one in found for line in _left_out(one, f" on {one.target}")]
    return "\n".join([*map(_machine, found), *_table([("target", *_HEAD), *rows], words=3), *left_out])


def _table(rows: Sequence[Sequence[str]], words: int = 2) -> list[str]:
    """Align columns, the first of them with words to the left, figures to the right."""
    count = len(rows[0])
    widths = [max(len(row[column]) for row in rows) for column in range(count)]
    sides = ["<"] * words + [">"] * (count - words)
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]


def _machine(found: Benchmark) -> str:
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    return f"{found.bundle} on {found.target}: {found.cpu}, {threads}, batch 1; {found.inputs}"


def _left_out(found: Benchmark, where: str) -> list[str]:
    return [f"{name} is left out{where}: {why}" for name, why in found.left_out.items()]


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
        _NOTHING if row.memory_bytes is None else size(row.memory_bytes),
        _NOTHING if row.first_answer_ms is None else milliseconds(row.first_answer_ms),
    )


def _percent(ends: tuple[float, float]) -> str:
    return interval(100 * ends[0], 100 * ends[1])
