"""The page of a comparison: one offline file."""

from collections.abc import Sequence

from edgestill.flows.compare.curves import overlaid
from edgestill.flows.compare.rows import asked, brief, origins, ships, stages
from edgestill.flows.compare.runs import ComparedRun, warnings
from edgestill.flows.report.drawing.canvas import baseline_looks
from edgestill.flows.report.drawing.page import render
from edgestill.flows.report.drawing.undrawn import forgiving
from edgestill.flows.terminal import joined, table
from edgestill.pipeline.figures import listing


def render_comparison(runs: Sequence[ComparedRun], cautions: list[str]) -> str:
    """Render the runs side by side; the same runs give the same page.

    Args:
        cautions: gets a sentence for each chart not drawn.
    """
    looks = baseline_looks([run.name for run in runs])
    with forgiving(cautions):
        curves = overlaid(runs, looks)
    differing, alike = stages(runs)
    return render(
        "compare.html.j2",
        {
            "title": f"{listing([run.name for run in runs])}, side by side",
            "runs": [(run, looks[run.name]) for run in runs],
            "warnings": [*warnings(runs), *(f"{caution}." for caution in cautions)],
            "asked": asked(runs),
            "ships": ships(runs),
            "origins": origins(runs),
            "stages": differing,
            "alike": listing(alike) if alike else "",
            "curves": curves,
        },
        package="edgestill.flows.compare",
    )


def comparison_lines(runs: Sequence[ComparedRun]) -> str:
    """Table of what ships, and sentences on what cannot be compared, for a terminal."""
    rows = [(name, *cells) for name, cells in brief(runs)]
    differ = [key for key, _ in asked(runs)]
    listed = ", ".join(differ[:12]) + (f" and {len(differ) - 12} more" if len(differ) > 12 else "")
    return joined(
        [
            *table(["", *(run.name for run in runs)], rows),
            f"asked differently: {listed}" if differ else "all were asked the same",
            *(f"caution: {sentence}" for sentence in warnings(runs)),
        ]
    )
