"""The smallest and the largest student that a search may find, for trial exports before the search."""

import random

from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.task import Task
from edgestill.search.config import SearchConfig
from edgestill.search.scoring.attempt import guarded
from edgestill.search.scoring.cost_table import CostTable, Shipped
from edgestill.search.space import Architecture
from edgestill.search.spaces import make_space
from edgestill.search.strategies.feasible import Bounds, cheapest, find_feasible

_DRAWN = 16  # random members, since a budget may rule out the ends of the genes


def ends_within_budget(
    config: SearchConfig, task: Task, seed: int, shipped: Shipped | None = None
) -> tuple[Architecture, ...]:
    """Return the members of fewest and most parameters among both ends of the genes and a few random members.

    One member is returned if both are the same. Only the limits on parameters and FLOPs apply, as these are cheap to
    count; the search checks the others.

    Raises:
        BudgetError: nothing was found within budget.
    """
    return _ends(_counted(config, task, shipped), seed)


def least_within_budget(
    config: SearchConfig, task: Task, seed: int, shipped: Shipped | None = None
) -> tuple[Architecture, ...]:
    """Return the member of fewest parameters of `ends_within_budget`, and one of fewest FLOPs, if it is another.

    Raises:
        BudgetError: nothing was found within budget.
    """
    bounds = _counted(config, task, shipped)
    smallest = _ends(bounds, seed)[0]
    fewest = cheapest(bounds, smallest, "flops")
    return (smallest,) if fewest == smallest else (smallest, fewest)


def _counted(config: SearchConfig, task: Task, shipped: Shipped | None) -> Bounds:
    """Bounds of the limits on parameters and FLOPs alone."""
    space = make_space(config.space)
    budget = config.budget.model_copy(
        update={"max_size_bytes": None, "max_peak_activation_bytes": None, "max_latency_ms": None}
    )
    return Bounds(space, guarded(CostTable(space, task, shipped), lambda architecture, outcome: None), budget)


def _ends(bounds: Bounds, seed: int) -> tuple[Architecture, ...]:
    space, rng = bounds.space, random.Random(derive_seed(seed, "ends"))
    tried = [space.make({gene.name: end(gene.choices) for gene in space.genes}) for end in (min, max)]
    tried += space.sample_different(_DRAWN, rng)
    found = [architecture for architecture in tried if bounds.is_feasible(architecture)]
    found = found or [find_feasible(bounds, rng)]

    def params(architecture: Architecture) -> int:
        cost: Cost = bounds.cost(architecture)
        return cost.params

    chosen = (min(found, key=params), max(found, key=params))
    return chosen if chosen[0] != chosen[1] else chosen[:1]
