"""Share of a space that keeps the budget, from a random sample."""

import random
from collections.abc import Callable
from typing import NamedTuple

from edgestill.flows.latency import latency_of
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.heads import what_ships
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.training.metrics import wilson
from edgestill.search.ends import ends_within_budget
from edgestill.search.hardware_costs import HardwareCosts
from edgestill.search.scoring.attempt import guarded
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.space import Architecture

_SAMPLE = 300  # students counted
_MEASURED = 6  # students timed, where a candidate's latency is measured


class Reach(NamedTuple):
    """Students within budget, of those drawn."""

    space_size: int
    drawn: int
    within: int  # of the limits on counted figures, and on a predicted latency
    timed: int  # of those within, where latencies are measured
    fast: int  # of those timed
    architectures: list[Architecture]  # within budget, by their number of parameters; never empty

    @property
    def sentence(self) -> str:
        low, high = wilson(self.within / self.drawn, self.drawn)
        how = (
            f"[{low:.0%}, {high:.0%}], by {self.drawn} random ones" if self.drawn < self.space_size else "(all counted)"
        )
        told = f"{self.within / self.drawn:.0%} of the space's {self.space_size:,} students keep the budget {how}"
        if self.timed:
            low, high = wilson(self.fast / self.timed, self.timed)
            told += f"; of these {self.fast} of {self.timed} measured ones keep max_latency_ms [{low:.0%}, {high:.0%}]"
        return told if self.within else f"{told}: the search descends to those that do"


def reach_of(context: StageContext, tick: Callable[[int, int, str], None]) -> Reach:
    """Draw students and count those within budget; time a few of them if the search would."""
    config, task = context.config.search, context.splits().task
    space, ships, latency = context.space, what_ships(context.config.distill), latency_of(context, task)
    is_measured = latency is not None and latency.is_measured
    budget = config.budget.model_copy(update={"max_latency_ms": None}) if is_measured else config.budget
    counts = CostTable(space, task, ships)
    costs = guarded(
        HardwareCosts(counts, space, task, budget, None if is_measured else latency, shipped=ships),
        lambda architecture, outcome: None,
    )
    drawn = space.sample_different(_SAMPLE, random.Random(context.seed("plan")))
    found: list[tuple[int, Architecture]] = []
    for done, architecture in enumerate(drawn):
        tick(done, len(drawn), "counting students within budget")
        cost = _cost(costs, architecture)
        if cost is not None and not budget.violations(cost):
            found.append((cost.params, architecture))
    ordered = [architecture for _, architecture in sorted(found, key=lambda item: item[0])]
    timed = fast = 0
    if is_measured and latency is not None and latency.measure is not None and config.budget.max_latency_ms is not None:
        for architecture in ordered[:: max(1, len(ordered) // _MEASURED)][:_MEASURED]:
            tick(timed, _MEASURED, "measuring latencies")
            timed += 1
            fast += latency.measure(architecture) <= config.budget.max_latency_ms
    usable = ordered or list(ends_within_budget(config, task, context.seed("search"), ships))
    return Reach(space.size, len(drawn), len(ordered), timed, fast, usable)


def _cost(costs: Callable[[Architecture], Cost], architecture: Architecture) -> Cost | None:
    try:
        return costs(architecture)
    except CandidateError:
        return None
