"""The report's section on a language model: exact answers, perplexity, speed, and continued prompts side by side."""

import math
from typing import Any

from edgestill.flows.report.data import ReportData
from edgestill.pipeline.figures import milliseconds
from edgestill.pipeline.training.metrics import wilson


def generated(report: ReportData) -> dict[str, Any] | None:
    """Figures of teacher, student and shipped file, and samples; None of a task that is no language."""
    tested, said, speed = report.tested, report.tested.generated, report.profiled.speed
    if not report.data.task.inputs.continues:
        return None
    rows = [
        (
            "Perplexity of a token",
            [f"{math.exp(found.cross_entropy):.3f}" for found in (tested.teacher, tested.student, tested.shipped)],
        )
    ]
    if said is not None:
        shares = (said.teacher, said.student, said.shipped)
        rows.insert(0, (f"Exact answers to {said.n:,} test prompts", [_share(share, said.n) for share in shares]))
        if said.same_as_teacher is not None:
            rows.insert(1, ("Answers that are the teacher's", ["", "", _share(said.same_as_teacher, said.n)]))
        if said.same_mistakes is not None:
            rows.insert(2, ("… where the teacher is wrong", ["", "", f"{said.same_mistakes:.2%}"]))
    return {
        "rows": rows,
        "speed": None
        if speed is None
        else f"The default file takes {milliseconds(speed.first_token_ms)} to the first token after a prompt of "
        f"{speed.prompt_tokens} tokens, and gives {speed.tokens_per_second:,.0f} tokens a second from there on.",
        "samples": [] if said is None else said.samples,
    }


def _share(share: float, n: int) -> str:
    low, high = wilson(share, n)
    return f"{share:.2%} [{100 * low:.1f}, {100 * high:.1f}]"
