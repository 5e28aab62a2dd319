"""The report's section on pruning: parameters, FLOPs and accuracy before it, after it, and after fine-tuning."""

from typing import Any

from distill.result import PruneResult
from flows.report import charts
from flows.words import accuracy_claim

_NAMES = {"taylor": "first-order Taylor expansion", "l1": "L1 norm of the filter", "fpgm": "geometric median"}


def pruning(result: PruneResult | None) -> dict[str, Any] | None:
    """None where no pruning was asked for."""
    if result is None:
        return None
    if result.refused is not None or result.cost is None or result.pruned is None or result.tuned is None:
        return {"refused": result.refused, "criterion": _NAMES[result.method], "keep": f"{result.keep:.0%}"}
    before, after = result.cost_before, result.cost
    return {
        "refused": None,
        "criterion": _NAMES[result.method],
        "keep": f"{result.keep:.0%}",
        "rows": [
            ("distilled", f"{before.params:,}", f"{before.flops:,}", f"{result.before.accuracy:.2%}"),
            ("pruned", f"{after.params:,}", f"{after.flops:,}", f"{result.pruned.accuracy:.2%}"),
            ("fine-tuned", f"{after.params:,}", f"{after.flops:,}", f"{result.tuned.accuracy:.2%}"),
        ],
        "examples": f"{result.tuned.n:,}",
        "shares": f"{after.params / before.params:.1%} of the parameters, "
        f"{after.flops / before.flops:.1%} of the FLOPs",
        "change": accuracy_claim(result.before.accuracy, result.tuned.accuracy).words,
        "sums": result.sums_pruned,
        "removed": f"{result.channels_removed or 0:.0%}",
        "learning_rate": f"{result.learning_rate:.3g}",
        "best_epoch": result.best_epoch,
        "epochs": len(result.curve),
        "chart": charts.accuracy_curve(result.curve, result.best_epoch, "student", result.before.accuracy),
    }
