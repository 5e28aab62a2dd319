"""The report's sections on fine-tuning after distillation: the pruned student, and the weights for INT8."""

from typing import Any

from edgestill.distill.result import PruneResult
from edgestill.flows.report.drawing import charts
from edgestill.flows.stages.results import QatResult
from edgestill.flows.wording.words import accuracy_claim

_NAMES = {"taylor": "first-order Taylor expansion", "l1": "L1 norm of the filter", "fpgm": "geometric median"}


def pruning(result: PruneResult | None) -> dict[str, Any] | None:
    """The section on pruning; None if pruning is off."""
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
            ("distilled", f"{before.params:,}", f"{before.flops:,}", result.before.words),
            (
                "pruned" if result.rounds == 1 else "after the last round",
                f"{after.params:,}",
                f"{after.flops:,}",
                result.pruned.words,
            ),
            ("fine-tuned", f"{after.params:,}", f"{after.flops:,}", result.tuned.words),
        ],
        "examples": f"{result.tuned.n:,}",
        "shares": f"{after.params / before.params:.1%} of the parameters, "
        f"{after.flops / before.flops:.1%} of the FLOPs",
        "change": accuracy_claim(result.before.accuracy, result.tuned.accuracy).words,
        "sums": result.sums_pruned,
        "rounds": result.rounds,
        "learning_rate": f"{result.learning_rate:.3g}",
        "best_epoch": result.best_epoch,
        "epochs": len(result.curve),
        "chart": charts.accuracy_curve(result.curve, result.best_epoch, "student", result.before.accuracy),
    }


def int8_fine_tuning(result: QatResult | None) -> dict[str, Any] | None:
    """The section on fine-tuning for INT8; None if there was none."""
    if result is None or not result.formats:
        return None
    rows = [
        (
            name,
            found.before.words,
            "–" if found.after is None else found.after.words,
            found.kept,
            "passes" if found.passes else "misses",
        )
        for name, found in result.formats.items()
    ]
    return {
        "refused": result.refused,
        "mode": result.mode,
        "allowed": f"{100 * result.allowed:g}",
        "fp32": result.fp32.words,
        "gate": "accuracy" if result.fp32.balanced_accuracy is None else "mean recall",
        "examples": f"{result.fp32.n:,}",
        "rows": rows,
        "reasons": [f"{name}: {found.reason}" for name, found in result.formats.items() if found.reason],
        "learning_rate": f"{result.learning_rate or 0:.3g}",
        "best_epoch": result.best_epoch,
        "epochs": len(result.curve),
        "chart": charts.accuracy_curve(result.curve, result.best_epoch, "student", result.fp32.accuracy)
        if result.curve
        else "",
    }
