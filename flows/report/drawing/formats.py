"""The picture of a benchmark: latency against agreement with fp32, and the size of each format's file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgestill.export.benchmark.result import Benchmark, Row
from edgestill.flows.report.drawing.canvas import COLOURS
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.figures import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def draw_benchmark(found: Sequence[Benchmark], path: Path) -> None:
    """Write the picture, a colour for each target; its kind is that of the file's suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    largest = max(row.size_bytes for one in found for row in one.rows)
    for place, one in enumerate(found):
        for row in one.rows:
            colour = COLOURS["teacher" if row.format == "fp32" else "student"][0]
            _draw_row(axes, row, colour if len(found) == 1 else f"C{place}", largest)
    axes.margins(0.15)
    axes.set_xlabel("latency of one call, ms: p50 (line: to p90)")
    axes.set_ylabel("answers as fp32, % of the inputs")
    if len(found) > 1:
        for place, one in enumerate(found):
            axes.scatter([], [], color=f"C{place}", alpha=0.55, label=f"{one.target}: {one.cpu}")
        axes.legend(fontsize=8)
        axes.set_xscale("log")
    title = found[0].bundle + (f" on {found[0].target}: {found[0].cpu}" if len(found) == 1 else "")
    axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=150)


def _draw_row(axes: "Axes", row: Row, colour: str, largest: int) -> None:
    height = 100 * (1.0 if row.agreement is None else row.agreement.share)
    axes.scatter(row.p50_ms, height, s=_LARGEST * row.size_bytes / largest, color=colour, alpha=0.55, linewidth=0)
    if row.p90_ms is not None:
        axes.plot([row.p50_ms, row.p90_ms], [height, height], color=colour, linewidth=1)
    label = f"{row.format}, {size(row.size_bytes)}"
    axes.annotate(label, (row.p50_ms, height), textcoords="offset points", xytext=(6, 6), fontsize=8)
