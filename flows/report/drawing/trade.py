"""The chart of the trade: accuracy against latency against size, for every format on every target."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from edgestill.flows.report.drawing.canvas import COLOURS, Look, baseline_looks, draw, log_ticks, percent_ticks, tip
from edgestill.flows.report.drawing.undrawn import chart
from edgestill.pipeline.figures import milliseconds, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST, _LEAST = 420, 30  # areas of marks, in points squared
_SPAN = 8  # ratio of latencies from which their axis is logarithmic


class TradePoint(NamedTuple):
    """One format on one target."""

    target: str
    format: str
    accuracy: float
    p50_ms: float
    size_bytes: int


def dominating(point: TradePoint, points: Sequence[TradePoint]) -> TradePoint | None:
    """Return a format that is as good in all three on the same target, and better in one; None if there is none."""
    figures = _costs(point)
    for other in points:
        theirs = _costs(other)
        no_worse = all(a <= b for a, b in zip(theirs, figures, strict=True))
        if other.target == point.target and no_worse and theirs != figures:
            return other
    return None


def looks_of(points: Sequence[TradePoint]) -> dict[str, Look]:
    """A look for each target, the same in the chart and beside it."""
    return baseline_looks(list(dict.fromkeys(point.target for point in points)))


@chart
def trade_chart(points: Sequence[TradePoint], width: int, height: int) -> Markup:
    """Plot accuracy against latency, a mark's area by its file's size; dominated formats are grey."""
    looks, largest = looks_of(points), max(point.size_bytes for point in points)
    tips = {f"trade{place}": tip_of(point, points) for place, point in enumerate(points)}

    def paint(axes: "Axes") -> None:
        for place, point in enumerate(points):
            look, is_dominated = looks[point.target], dominating(point, points) is not None
            colour = COLOURS["point"][0] if is_dominated else look.colour
            area = max(_LEAST, _LARGEST * point.size_bytes / largest)
            mark = axes.scatter(
                point.p50_ms,
                point.accuracy,
                s=area,
                marker=look.marker,
                color=colour,
                alpha=0.4 if is_dominated else 0.75,
                linewidth=0,
            )
            mark.set_urls([tip(f"trade{place}")])
            axes.annotate(
                point.format,
                (point.p50_ms, point.accuracy),
                textcoords="offset points",
                xytext=(9, 6),
                fontsize=9.5,
                color=COLOURS["muted" if is_dominated else "ink"][0],
                parse_math=False,
            )
        latencies = [point.p50_ms for point in points]
        if max(latencies) > _SPAN * min(latencies):
            axes.set_xscale("log")
            log_ticks(axes.xaxis)
        percent_ticks(axes.yaxis)
        axes.margins(0.15)
        axes.set_xlabel("median latency, ms")
        axes.set_ylabel("accuracy")

    return draw(width, height, paint, tips)


def tip_of(point: TradePoint, points: Sequence[TradePoint]) -> str:
    """Words on a point: `int8 on pi5: 93.20%, 0.510 ms, 84 kB; fp32 is no worse in any of these`."""
    better = dominating(point, points)
    beaten = "" if better is None else f"; {better.format} is no worse in any of these"
    figures = f"{point.accuracy:.2%}, {milliseconds(point.p50_ms)}, {size(point.size_bytes)}"
    return f"{point.format} on {point.target}: {figures}{beaten}"


def _costs(point: TradePoint) -> tuple[float, float, int]:
    return -point.accuracy, point.p50_ms, point.size_bytes
