"""Charts of a tuning's trials after Optuna's own: importances of the hyperparameters, and slices along each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from edgestill.distill.result import TrialRecord
from edgestill.flows.report.drawing.canvas import COLOURS, draw, log_ticks, percent_ticks, tip
from edgestill.flows.report.drawing.undrawn import chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SLICE = (270, 200)


@chart
def importance_bars(shares: Mapping[str, float]) -> Markup:
    """A bar for each hyperparameter, the most important on top; its name is in a table beside the chart."""

    def paint(axes: "Axes") -> None:
        places = range(len(shares), 0, -1)
        axes.barh(places, [*shares.values()], color=COLOURS["teacher"][0], height=0.62)
        for place, share in zip(places, shares.values(), strict=True):
            axes.text(share + 0.01, place, f"{share:.0%}", va="center", color=COLOURS["ink"][0], fontsize=11)
        axes.set_yticks([*places], [str(number) for number in range(1, len(shares) + 1)])
        axes.set_xlim(0, max(shares.values()) * 1.18 or 1)
        percent_ticks(axes.xaxis)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share of the variance explained")

    return draw(420, 56 + 34 * len(shares), paint)


@chart
def slice_of(trials: Sequence[TrialRecord], name: str, *, is_log: bool, best: int | None) -> Markup:
    """Validation accuracy of the completed trials against one hyperparameter; the best trial stands out."""
    shown = [t for t in trials if t.state == "COMPLETE" and t.value is not None and name in t.params]
    tips = {str(t.number): f"trial {t.number}: {t.params[name]:.3g}, {t.value or 0:.2%}" for t in shown}

    def paint(axes: "Axes") -> None:
        from matplotlib.ticker import LogLocator

        colours = [COLOURS["student" if t.number == best else "point"][0] for t in shown]
        values = [t.value or 0.0 for t in shown]
        points = axes.scatter([t.params[name] for t in shown], values, s=46, color=colours, linewidth=0)
        points.set_urls([tip(str(t.number)) for t in shown])
        if is_log:
            axes.set_xscale("log")
            log_ticks(axes.xaxis)
            values_there = [t.params[name] for t in shown]
            if max(values_there) > 30 * min(values_there):
                axes.xaxis.set_major_locator(LogLocator(numticks=5))
        percent_ticks(axes.yaxis)
        axes.margins(0.1)

    return draw(*_SLICE, paint, tips)
