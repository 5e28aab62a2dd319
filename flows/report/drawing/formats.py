"""The picture of a benchmark: latency against agreement with fp32, and the size of each format's file."""

from pathlib import Path

from edgestill.export.benchmark.result import Benchmark
from edgestill.flows.report.drawing.canvas import COLOURS
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.figures import size

_SUFFIXES = (".svg", ".png", ".pdf")
_LARGEST = 900  # area of the largest file's mark, in points squared


def require_picture(path: Path) -> None:
    """Refuse a file that no picture can be written to, before anything is measured.

    Raises:
        ConfigError: its suffix is of no kind of picture, or its folder is not there.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError([f"--plot {path}: expected a file that ends in {', '.join(_SUFFIXES)}"])
    if not path.parent.is_dir():
        raise ConfigError([f"--plot {path}: there is no folder {path.parent}"])


def draw_benchmark(found: Benchmark, path: Path) -> None:
    """Write the picture; its kind is that of the file's suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    largest = max(row.size_bytes for row in found.rows)
    for row in found.rows:
        height = 100 * (1.0 if row.agreement is None else row.agreement.share)
        colour = COLOURS["teacher" if row.format == "fp32" else "student"][0]
        axes.scatter(row.p50_ms, height, s=_LARGEST * row.size_bytes / largest, color=colour, alpha=0.55, linewidth=0)
        if row.p90_ms is not None:
            axes.plot([row.p50_ms, row.p90_ms], [height, height], color=colour, linewidth=1)
        label = f"{row.format}, {size(row.size_bytes)}"
        axes.annotate(label, (row.p50_ms, height), textcoords="offset points", xytext=(6, 6), fontsize=8)
    axes.margins(0.15)
    axes.set_xlabel("latency of one call, ms: p50 (line: to p90)")
    axes.set_ylabel("answers as fp32, % of the inputs")
    axes.set_title(f"{found.bundle} on {found.target}: {found.cpu}", fontsize=9)
    figure.savefig(path, dpi=150)
