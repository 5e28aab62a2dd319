"""The charts of a latency profile."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from edgestill.export.device.document import Result
from edgestill.flows.report.drawing.canvas import COLOURS, draw
from edgestill.flows.report.drawing.undrawn import chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HALF = (420, 270)


@chart
def steadiness(results: Sequence[Result], roles: Mapping[str, str], turn: int) -> Markup:
    """Each turn's median over the model's own median, process after process."""
    import numpy as np

    def paint(axes: "Axes") -> None:
        ends = [0.0]
        for process in results[0].processes:
            ends.append(ends[-1] + len(process.samples_ms) // turn)
        drawn: list[float] = []
        for result in results:
            typical = float(np.median([value for process in result.processes for value in process.samples_ms]))
            for start, process in zip(ends, result.processes, strict=False):
                turns = len(process.samples_ms) // turn
                medians = np.median(np.reshape(process.samples_ms[: turns * turn], (turns, turn)), axis=1) / typical
                step = max(1, turns // 150)  # more points than the chart's pixels would not show
                kept = np.median(medians[: turns // step * step].reshape(-1, step), axis=1)
                drawn.extend(map(float, kept))
                axes.plot(
                    start + step * (np.arange(len(kept)) + 0.5),
                    kept,
                    color=COLOURS[roles[result.model]][0],
                    linewidth=1.1,
                )
        for end in ends[1:-1]:
            axes.axvline(end, color=COLOURS["muted"][0], linewidth=0.9, linestyle=(0, (2, 3)))
        middles = [(a + b) / 2 for a, b in itertools.pairwise(ends)]
        axes.set_xticks(middles, [f"process {number}" for number in range(1, len(ends))])
        axes.set_ylim(*_around_one(drawn))
        axes.set_ylabel("median of a turn, relative")

    return draw(*_HALF, paint)


def _around_one(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis around 1: ten percent to each side at least, so a steady line looks steady.

    A rare spike (beyond the 1st and 99th percentile) does not squeeze the rest.
    """
    import numpy as np

    low, high = np.quantile(values, [0.01, 0.99])
    return min(float(low) * 0.98, 0.9), max(float(high) * 1.02, 1.1)
