"""Search for members of a space within budget, and the error if there are none."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from edgestill.pipeline.errors import BudgetError, CandidateError
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.budget import Budget
from edgestill.search.space import Architecture, SearchSpace

_RANDOM_TRIES = 200  # random architectures looked at before a feasible one is sought by descent
_DESCENTS = 8


@dataclass(frozen=True)
class Bounds:
    """Space, the costs of its members, and the limits on them."""

    space: SearchSpace
    cost: Callable[[Architecture], Cost]  # counted once each; raises CandidateError if not found
    budget: Budget

    def is_feasible(self, architecture: Architecture) -> bool:
        """True if the architecture is within budget; False if its cost cannot be found."""
        try:
            return not self.budget.violations(self.cost(architecture))
        except CandidateError:
            return False

    def excess(self, architecture: Architecture) -> float:
        """Return the relative excess over the budget; 0 is feasible, infinite if the cost cannot be found."""
        try:
            return self.budget.excess(self.cost(architecture))
        except CandidateError:
            return math.inf


def find_feasible(bounds: Bounds, rng: random.Random) -> Architecture:
    """Return a random member within budget; if random draws find none, one reached by descent on the excess.

    Raises:
        BudgetError: none was found; names the limit and the nearest miss.
    """
    for _ in range(_RANDOM_TRIES):
        architecture = bounds.space.sample(rng)
        if bounds.is_feasible(architecture):
            return architecture
    misses = []
    for _ in range(_DESCENTS):
        architecture = _descend(bounds, bounds.space.sample(rng), rng)
        if bounds.is_feasible(architecture):
            return architecture
        misses.append(architecture)
    raise unreachable(bounds, min(misses, key=bounds.excess))


def _descend(bounds: Bounds, architecture: Architecture, rng: random.Random) -> Architecture:
    """Set gene after gene to the choice of least excess, until none helps or the budget is met."""
    space = bounds.space
    improved = True
    while improved and not bounds.is_feasible(architecture):
        improved = False
        for gene in rng.sample(space.genes, len(space.genes)):
            options = [space.make(architecture.choices | {gene.name: choice}) for choice in gene.choices]
            least = min(options, key=bounds.excess)
            if bounds.excess(least) < bounds.excess(architecture):
                architecture, improved = least, True
            if bounds.is_feasible(architecture):
                break
    return architecture


def cheapest(bounds: Bounds, start: Architecture, name: str) -> Architecture:
    """Set gene after gene of a feasible member to the choice of least cost `name` within budget, until none helps."""

    def price(architecture: Architecture) -> float:
        return float(getattr(bounds.cost(architecture), name)) if bounds.is_feasible(architecture) else math.inf

    best, improved = start, True
    while improved:
        improved = False
        for gene in bounds.space.genes:
            options = [bounds.space.make(best.choices | {gene.name: choice}) for choice in gene.choices]
            least = min(options, key=price)
            if price(least) < price(best):
                best, improved = least, True
    return best


def unreachable(bounds: Bounds, nearest_miss: Architecture) -> BudgetError:
    """Return the error for a budget met by no member; it names the nearest miss."""
    try:
        found = bounds.cost(nearest_miss)
    except CandidateError as error:
        return BudgetError(f"no student of space {bounds.space.name!r} has a cost to compare with the budget: {error}")
    return BudgetError(
        f"no student of space {bounds.space.name!r} meets the budget: the nearest is "
        f"{bounds.space.format(nearest_miss)}, whose {' and '.join(bounds.budget.violations(found))}; "
        "raise that limit, or offer the space smaller choices"
    )
