"""The reliability diagram, and how often each confidence was given."""

from typing import TYPE_CHECKING

from markupsafe import Markup

from edgestill.export.tested.result import Reliability
from edgestill.flows.report.drawing.canvas import COLOURS, draw, percent_ticks
from edgestill.flows.report.drawing.undrawn import chart
from edgestill.pipeline.training.metrics import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (420, 300)
_MARKERS = {"teacher": "o", "student": "s"}


@chart
def reliability_diagram(found: dict[str, Reliability]) -> Markup:
    """Accuracy against mean confidence, a point with its 95 % interval for each bin with examples.

    Args:
        found: by role, `teacher` and `student`.
    """

    def paint(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"][0], linewidth=1.1, linestyle=(0, (4, 3)))
        for role, one in found.items():
            bins = [(c / n, h / n, n) for n, h, c in zip(one.counts, one.hits, one.confidences, strict=True) if n]
            xs, ys, counts = zip(*bins, strict=True)
            colour, ends = COLOURS[role][0], [wilson(y, n) for y, n in zip(ys, counts, strict=True)]
            axes.vlines(xs, *zip(*ends, strict=True), color=colour, linewidth=1.6, alpha=0.45)
            sizes = [18 + 150 * (n / one.n) ** 0.5 for n in counts]
            axes.scatter(xs, ys, s=sizes, marker=_MARKERS[role], color=colour, alpha=0.75, linewidth=0, zorder=3)
        low = min(c / n for one in found.values() for n, c in zip(one.counts, one.confidences, strict=True) if n)
        axes.set_xlim(max(0.0, low - 0.05), 1.02)
        axes.set_ylim(-0.03, 1.03)
        percent_ticks(axes.xaxis)
        percent_ticks(axes.yaxis)
        axes.set_xlabel("mean confidence")
        axes.set_ylabel("accuracy")

    return draw(*_SIZE, paint)


@chart
def confidence_histogram(found: dict[str, Reliability]) -> Markup:
    """Share of the examples by confidence."""

    def paint(axes: "Axes") -> None:
        for place, (role, one) in enumerate(found.items()):
            width = 1 / len(one.counts)
            lefts = [(k + 0.08 + 0.42 * place) * width for k in range(len(one.counts))]
            shares = [n / one.n for n in one.counts]
            axes.bar(lefts, shares, width=0.42 * width, align="edge", color=COLOURS[role][0])
        first = min(next(k for k, n in enumerate(one.counts) if n) / len(one.counts) for one in found.values())
        axes.set_xlim(first, 1)
        percent_ticks(axes.xaxis)
        percent_ticks(axes.yaxis)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of the test examples")

    return draw(*_SIZE, paint)
