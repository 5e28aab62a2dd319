"""The report's charts. Names chosen by a user or a plug-in stay out of them: legends are HTML, beside the chart."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from edgestill.distill.result import TrialRecord, TuneResult
from edgestill.flows.report.drawing.canvas import COLOURS, Look, baseline_looks, draw, log_ticks, percent_ticks
from edgestill.flows.report.drawing.undrawn import chart
from edgestill.pipeline.training.state import EpochRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HALF = (420, 270)  # a little less than half of the page; words stay legible on a phone
_TERM_STYLES = ("--", ":", "-.")
_MUTED, _CARD = COLOURS["muted"][0], COLOURS["card"][0]


@chart
def tuning_history(tuned: TuneResult) -> Markup:
    """Each trial's validation accuracy and the best of the completed ones so far.

    A trial without a finished epoch has no value; it stands on the lower edge.
    """

    def paint(axes: "Axes") -> None:
        completed = [(t.number, t.value) for t in tuned.trials if t.state == "COMPLETE" and t.value is not None]
        if completed:
            best = list(itertools.accumulate((value for _, value in completed), max))
            numbers = [*(number for number, _ in completed), max(t.number for t in tuned.trials)]
            axes.step(numbers, [*best, best[-1]], where="post", color=COLOURS["student"][0], linewidth=1.6)
        for trial in tuned.trials:
            _paint_trial(axes, trial)
        axes.margins(y=0.1)
        percent_ticks(axes.yaxis)
        _label_steps(axes, "trial", "validation accuracy")

    return draw(*_HALF, paint)


@chart
def accuracy_curve(
    curve: Sequence[EpochRecord], best_epoch: int | None, role: str, teacher_accuracy: float | None = None
) -> Markup:
    """Validation accuracy by epoch, the best epoch, and the teacher's level as a dashed line."""
    colour = COLOURS[role][0]
    accuracies = [record.validation_accuracy for record in curve]

    def paint(axes: "Axes") -> None:
        axes.plot([r.epoch for r in curve], accuracies, color=colour, linewidth=1.8)
        if teacher_accuracy is not None:
            axes.axhline(teacher_accuracy, color=COLOURS["teacher"][0], linewidth=1.4, linestyle=(0, (5, 3)))
        best = next((r for r in curve if r.epoch == best_epoch), None)
        if best is not None:
            axes.scatter([best.epoch], [best.validation_accuracy], s=70, color=colour, edgecolor=_CARD, zorder=4)
            axes.axvline(best.epoch, color=colour, linewidth=0.9, alpha=0.5)
        top = max([*accuracies, teacher_accuracy or 0.0])
        bottom = accuracy_floor(accuracies, top)
        axes.set_ylim(bottom, top + 0.08 * (top - bottom))
        percent_ticks(axes.yaxis)
        _label_steps(axes, "epoch", "validation accuracy")

    return draw(*_HALF, paint)


def accuracy_floor(accuracies: Sequence[float], top: float) -> float:
    """Lower end of the accuracy axis: poor first epochs must not flatten all later ones.

    Three quarters of the epochs fill the upper half; the axis spans 4 points at least.
    """
    quartile = sorted(accuracies)[len(accuracies) // 4]
    return max(0.0, min(quartile - (top - quartile), top - 0.04))


@chart
def loss_curve(curve: Sequence[EpochRecord], role: str) -> Markup:
    """The loss by epoch and, if there are several, its terms."""
    epochs = [record.epoch for record in curve]
    looks = term_looks(curve)
    lines = {name: [record.terms.get(name, math.nan) for record in curve] for name in looks}
    total = [record.loss for record in curve]

    def paint(axes: "Axes") -> None:
        axes.plot(epochs, total, color=COLOURS[role][0], linewidth=4 if lines else 1.8, alpha=0.4 if lines else 1)
        for place, (name, values) in enumerate(lines.items()):
            style = _TERM_STYLES[place % len(_TERM_STYLES)]
            axes.plot(epochs, values, color=looks[name].colour, linewidth=1.5, linestyle=style)
        known = [value for line in (total, *lines.values()) for value in line if not math.isnan(value)]
        if min(known) > 0 and max(known) > 10 * min(known):
            axes.set_yscale("log")
            axes.minorticks_off()
            if max(known) < 1e4 * min(known):
                log_ticks(axes.yaxis)
        _label_steps(axes, "epoch", "training loss")

    return draw(*_HALF, paint)


def term_looks(curve: Sequence[EpochRecord]) -> dict[str, Look]:
    """A look for each term of the loss; none if the loss is its only term."""
    names = list(curve[0].terms)
    return baseline_looks(names) if len(names) > 1 else {}


@chart
def latency_histogram(
    samples_ms: Mapping[str, Sequence[float]], medians_ms: Mapping[str, float], roles: Mapping[str, str] | None = None
) -> Markup:
    """Histogram of single calls of each model, up to the largest `shown_until_ms`; given medians are lines.

    Args:
        roles: model -> its colour role; a model not listed is named by its role.
    """
    import numpy as np

    low = min(map(min, samples_ms.values()))
    high = max(max(map(shown_until_ms, samples_ms.values())), low * 1.001 + 1e-9)  # or bins would have no width
    is_log = high > 3 * low > 0  # below, a logarithmic axis has hardly a tick
    bins = [float(edge) for edge in (np.geomspace if is_log else np.linspace)(low, high, 90)]

    def paint(axes: "Axes") -> None:
        for name, samples in samples_ms.items():
            colour = COLOURS[(roles or {}).get(name, name)][0]
            shares = np.full(len(samples), 1 / len(samples))
            axes.hist(samples, bins=bins, weights=shares, color=colour, histtype="stepfilled", alpha=0.3)
            axes.hist(samples, bins=bins, weights=shares, color=colour, histtype="step", linewidth=1.2)
            if name in medians_ms:
                axes.axvline(medians_ms[name], color=colour, linewidth=1.6, linestyle=(0, (5, 3)))
        if is_log:
            axes.set_xscale("log")
            log_ticks(axes.xaxis)
        percent_ticks(axes.yaxis)
        axes.set_xlabel("milliseconds a call" + (", logarithmic" if is_log else ""))
        axes.set_ylabel("share of calls")

    return draw(*_HALF, paint)


def shown_until_ms(samples: Sequence[float]) -> float:
    """The 99.5th percentile: a few calls interrupted by the system would squeeze the rest."""
    return sorted(samples)[math.ceil(0.995 * len(samples)) - 1]


def _paint_trial(axes: "Axes", trial: TrialRecord) -> None:
    role, marker = {"COMPLETE": ("student", "o"), "PRUNED": ("muted", "o")}.get(trial.state, ("bad", "X"))
    colour = COLOURS[role][0]
    axes.scatter(
        trial.number,
        0.0 if trial.value is None else trial.value,
        s=42,
        marker=marker,
        facecolor=_CARD if trial.state == "PRUNED" else colour,
        edgecolor=colour,
        linewidth=1.3,
        transform=axes.get_xaxis_transform() if trial.value is None else axes.transData,
        clip_on=False,
        zorder=3,
    )


def _label_steps(axes: "Axes", step: str, what: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(step)
    axes.set_ylabel(what)
