"""Render report.html: one offline file, to be looked at rather than read."""

from typing import Any

from edgestill.distill.tune import configured_values, search_ranges
from edgestill.flows.report import confidence, details, ranks, summary, use
from edgestill.flows.report.by_class import classes
from edgestill.flows.report.data import ReportData
from edgestill.flows.report.device import section
from edgestill.flows.report.drawing.page import render
from edgestill.flows.report.drawing.undrawn import forgiving
from edgestill.flows.report.formats import formats
from edgestill.flows.report.generated import generated
from edgestill.flows.report.look import data_look
from edgestill.flows.report.methods import methods
from edgestill.flows.report.pruning import int8_fine_tuning, pruning
from edgestill.flows.report.targets import targets
from edgestill.flows.report.trade import trade
from edgestill.flows.report.worth import worth


def render_report(report: ReportData, cautions: list[str] | None = None) -> str:
    """Render the report as one self-contained HTML page.

    The same data gives the same page, byte for byte, with the same version of matplotlib.

    Args:
        cautions: gets a sentence for each chart not drawn; the page has them too.
    """
    undrawn: list[str] = [] if cautions is None else cautions
    with forgiving(undrawn):
        sections = _sections(report)
    done_without = [f"{caution[:1].upper()}{caution[1:]}." for caution in (*report.cautions, *undrawn)]
    return render("report.html.j2", {"cautions": [*summary.cautions(report), *done_without], **sections})


def _sections(report: ReportData) -> dict[str, Any]:
    distill = report.config.distill
    ranges = search_ranges(distill)
    return {
        "chosen_by": "validation accuracy" if distill.training.metric == "accuracy" else "mean recall on validation",
        "header": summary.header(report),
        "worth": worth(report),
        "tiles": summary.tiles(report),
        "chain": summary.chain(report),
        "comparison": summary.comparison(report),
        "generated": generated(report),
        "look": data_look(report),
        "use": use.commands(report),
        "formats": formats(report),
        "targets": targets(report.profiled),
        "trade": trade(report),
        "found": report.found,
        "search": details.search(report.found),
        "tournament": ranks.tournament(report.played),
        "ranked": ranks.rank_check(report.ranked),
        "recipe": ranks.recipe(report.recipe, report.results),
        "tuning": details.tuning(report.tuned, configured_values(distill, ranges), ranges),
        "learning": details.learning(report),
        "methods": methods(report.distilled),
        "pruning": pruning(report.pruned),
        "qat": int8_fine_tuning(report.fine_tuned),
        "asked": summary.asked(report),
        "classes": classes(report),
        "confidence": confidence.confidence(report),
        "disagreements": confidence.disagreements(report),
        "robustness": confidence.robustness(report),
        "latency": details.latency(report),
        "devices": [section(profile) for profile in report.devices],
        "provenance": details.provenance(report),
    }
