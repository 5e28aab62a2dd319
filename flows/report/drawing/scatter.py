"""The search's chart: each candidate's value in selection against its parameters, and the baselines' picks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from markupsafe import Markup

from edgestill.flows.report.drawing.canvas import COLOURS, WINNER, baseline_looks, count_ticks, draw, log_ticks, tip
from edgestill.flows.report.drawing.undrawn import chart
from edgestill.search.fitness import fitness_name_of, fitness_of
from edgestill.search.result import Candidate, SearchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

MOST_TIPS = 1500  # more candidates become one picture: as elements they would slow the page
_INK, _CARD = COLOURS["ink"][0], COLOURS["card"][0]


@chart
def search_scatter(found: SearchResult, width: int, height: int, *, with_tips: bool) -> Markup:
    """Plot values in selection against parameters: all candidates, the winner, the baselines' picks.

    A pick not met by the winner's search has no value here; it stands on the lower edge.

    Args:
        with_tips: show a candidate's name under the pointer; only up to `MOST_TIPS` candidates.
    """
    values = selection_values(found)
    shown = found.candidates if with_tips and len(found.candidates) <= MOST_TIPS else ()
    tips = {str(i): _candidate_tip(c, found.scorer) for i, c in enumerate(shown)}

    def paint(axes: "Axes") -> None:
        _paint_front(axes, found, values)
        points = _paint_candidates(axes, found, values)
        if tips:
            points.set_urls([tip(key) for key in tips])
        _paint_picks(axes, found, values)
        if found.budget.max_params is not None:
            axes.axvline(found.budget.max_params, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
        params = [c.cost.params for c in (*found.candidates, *found.picks.values())]
        if max(params) > 10 * min(params):
            axes.set_xscale("log")
            log_ticks(axes.xaxis)
        else:
            count_ticks(axes.xaxis)
        axes.margins(x=0.05, y=0.1)
        axes.set_xlabel("parameters")
        axes.set_ylabel(fitness_name_of(found), parse_math=False)

    return draw(width, height, paint, tips)


def selection_values(found: SearchResult) -> dict[str, float]:
    """Values compared by the winner's search, by architecture."""
    values = fitness_of(found)
    return {c.architecture: value for c, value in zip(found.candidates, values, strict=True)}


def pareto_front(found: SearchResult, values: Mapping[str, float]) -> list[tuple[int, float]]:
    """(parameters, value) of each candidate above which none is with as few parameters, by parameters."""
    front: list[tuple[int, float]] = []
    for candidate in sorted(found.candidates, key=lambda c: (c.cost.params, -values[c.architecture])):
        value = values[candidate.architecture]
        if not front or value > front[-1][1]:
            front.append((candidate.cost.params, value))
    return front


def _paint_front(axes: "Axes", found: SearchResult, values: Mapping[str, float]) -> None:
    front = pareto_front(found, values)
    if len(front) > 1:
        axes.step(*zip(*front, strict=True), where="post", color=COLOURS["teacher"][0], linewidth=1.4, alpha=0.8)


def _paint_candidates(axes: "Axes", found: SearchResult, values: Mapping[str, float]) -> "PathCollection":
    return axes.scatter(
        [c.cost.params for c in found.candidates],
        [values[c.architecture] for c in found.candidates],
        s=30 if len(found.candidates) < 300 else 14,
        color=COLOURS["point"][0],
        alpha=0.6,
        linewidth=0,
        rasterized=len(found.candidates) > MOST_TIPS,
    )


def _paint_picks(axes: "Axes", found: SearchResult, values: Mapping[str, float]) -> None:
    """Paint the winner, and each pick hollow and a size larger than the marks at its place, so none hides another."""
    winner = found.winner
    is_own = fitness_name_of(found) == found.scorer  # the spread is of the score, not of what is made of all scores
    spread = winner.std.get(found.scorer, 0.0) if is_own else 0.0
    place = (winner.cost.params, values[winner.architecture])
    axes.errorbar(*place, yerr=spread or None, color=WINNER.colour, elinewidth=1.2, capsize=0, zorder=3)
    axes.scatter(*place, s=340, marker=WINNER.marker, color=WINNER.colour, edgecolor=_CARD, linewidth=0.8, zorder=5)
    marks = {winner.architecture: 1}
    for name, look in baseline_looks(list(found.picks)).items():
        pick = found.picks[name]
        size = 70 * (1 + 3 * marks.get(pick.architecture, 0))
        marks[pick.architecture] = marks.get(pick.architecture, 0) + 1
        met = pick.architecture in values
        axes.scatter(
            pick.cost.params,
            values[pick.architecture] if met else 0.0,
            s=size,
            marker=look.marker,
            facecolor="none",
            edgecolor=look.colour,
            linewidth=1.8,
            transform=axes.transData if met else axes.get_xaxis_transform(),
            clip_on=False,
            zorder=4,
        )


def _candidate_tip(candidate: Candidate, scorer: str) -> str:
    return f"{candidate.architecture}: {candidate.cost.params:,} parameters, {scorer} {candidate.scores[scorer]:.4g}"
