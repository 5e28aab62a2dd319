"""Learning curves of several runs in one chart."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from edgestill.distill.result import DistillResult
from edgestill.flows.compare.runs import ComparedRun, groups
from edgestill.flows.report.drawing.canvas import Look, draw, percent_ticks
from edgestill.flows.report.drawing.charts import accuracy_floor
from edgestill.flows.report.drawing.undrawn import chart
from edgestill.pipeline.training.state import EpochRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (860, 320)
_STYLES = ("-", "--", "-.", ":")


def overlaid(runs: Sequence[ComparedRun], looks: Mapping[str, Look]) -> list[dict[str, Any]]:
    """A chart for each group of runs with the same validation examples: the students' accuracy by epoch."""
    grouped = groups([run for run in runs if _curve(run)], lambda run: run.split("validation"))
    return [
        {
            "runs": [(run.name, looks[run.name], _kind(looks, run.name)) for run in group],
            "chart": validation_curves({run.name: _curve(run) for run in group}, looks),
        }
        for group in grouped
    ]


@chart
def validation_curves(curves: Mapping[str, Sequence[EpochRecord]], looks: Mapping[str, Look]) -> Markup:
    """Validation accuracy by epoch of each run."""
    accuracies = {name: [record.validation_accuracy for record in curve] for name, curve in curves.items()}

    def paint(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        for name, curve in curves.items():
            style = _STYLES[[*looks].index(name) % len(_STYLES)]
            epochs = [record.epoch for record in curve]
            marker = looks[name].marker if len(curve) == 1 else None
            axes.plot(epochs, accuracies[name], style, color=looks[name].colour, linewidth=1.8, marker=marker)
        top = max(map(max, accuracies.values()))
        bottom = min(accuracy_floor(found, max(found)) for found in accuracies.values())
        axes.set_ylim(bottom, top + 0.08 * (top - bottom))
        percent_ticks(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy")

    return draw(*_SIZE, paint)


def _curve(run: ComparedRun) -> Sequence[EpochRecord]:
    found = run.results.get(DistillResult)
    return () if found is None else found.curve


def _kind(looks: Mapping[str, Look], name: str) -> str:
    """CSS class of a line in the legend, like its stroke in the chart."""
    return ("", "dashed", "dashed", "dotted")[[*looks].index(name) % 4]
