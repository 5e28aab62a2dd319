"""A plan as lines for the terminal."""

from edgestill.flows.plan.plan import Plan, Planned, cached_words
from edgestill.flows.terminal import joined, table
from edgestill.pipeline.figures import duration, size


def plan_lines(plan: Plan) -> str:
    """Table of the stages with their sum, and sentences on the budget and on what is missing."""
    total = (
        "all",
        duration(plan.seconds),
        _most_memory(plan),
        size(sum(p.estimate.disk_bytes for p in plan.stages)),
        "",
    )
    return joined(
        [
            *table(["stage", "time", "memory", "disk", ""], [*map(_row, plan.stages), total], words_last=True),
            f"budget: {plan.reach}",
            *(f"missing here: {line}" for line in plan.lacking),
            *(f"caution: {line}" for line in plan.cautions),
            cached_words(),
        ]
    )


def _row(planned: Planned) -> tuple[str, ...]:
    seconds, disk, note = planned.estimate
    time = "?" if seconds is None else duration(seconds)
    memory = "" if planned.memory_bytes is None else size(planned.memory_bytes)
    return planned.stage, time, memory, size(disk) if disk else "", note


def _most_memory(plan: Plan) -> str:
    found = [planned.memory_bytes for planned in plan.stages if planned.memory_bytes is not None]
    return size(max(found)) if found else ""
