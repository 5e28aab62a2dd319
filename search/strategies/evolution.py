"""Evolution with truncation selection under hard budgets as DisWOT describes.

The published code differs: its NAS-Bench-201 search takes parents from the five worst of eight, starts from 36
copies of one architecture, and never checks a child's FLOPs.
"""

import functools
import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from pipeline.cost import Cost
from pipeline.errors import BudgetError
from search.config import Budget, EvolutionConfig
from search.space import Architecture, SearchSpace

_RANDOM_TRIES = 200  # random architectures looked at before a feasible one is sought by descent
_DESCENTS = 8
_CHILD_TRIES = 200  # children looked at before the neighbourhood counts as exhausted


class _Scored(Protocol):
    @property
    def cost(self) -> Cost: ...


S = TypeVar("S", bound=_Scored)


def evolve(
    space: SearchSpace,
    score: Callable[[Architecture], S | None],
    cost: Callable[[Architecture], Cost],
    rank: Callable[[Sequence[S]], Sequence[float]],
    budget: Budget,
    config: EvolutionConfig,
    rng: random.Random,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> list[S]:
    """All candidates scored, in order; every one is within budget and none comes twice.

    A space of at most `config.evaluations` members is enumerated instead.

    Args:
        score: a candidate's score, or None where it failed; a failure uses up an evaluation.
        rank: fitness of each of a list of candidates, higher is better; may depend on the whole list.

    Raises:
        BudgetError: no member within budget was found; names the limit and the nearest miss.
    """
    if space.size <= config.evaluations:
        return _enumerate(space, score, cost, budget, tick)
    seen: set[str] = set()
    scored: list[tuple[Architecture, S]] = []
    evaluations = 0
    while evaluations < config.evaluations:
        if len(scored) < config.population:
            child = _newcomer(space, cost, budget, rng, seen)
        else:
            parents = _best(scored, rank, config.population)[: config.parents]
            breed = functools.partial(_child, space, parents, config, rng)
            child = _unseen(breed, seen, lambda architecture: not budget.violations(cost(architecture)))
            child = child or _newcomer(space, cost, budget, rng, seen)
        if child is None:
            break
        seen.add(child.key)
        result = score(child)
        evaluations += 1
        if result is not None:
            scored.append((child, result))
        tick(evaluations, config.evaluations)
    return [result for _, result in scored]


def _enumerate(
    space: SearchSpace,
    score: Callable[[Architecture], S | None],
    cost: Callable[[Architecture], Cost],
    budget: Budget,
    tick: Callable[[int, int], None],
) -> list[S]:
    feasible = [a for a in space.all_architectures() if not budget.violations(cost(a))]
    if not feasible:
        raise _unreachable(space, min(space.all_architectures(), key=lambda a: budget.excess(cost(a))), cost, budget)
    found = []
    for done, architecture in enumerate(feasible, start=1):
        result = score(architecture)
        if result is not None:
            found.append(result)
        tick(done, len(feasible))
    return found


def _best(
    scored: Sequence[tuple[Architecture, S]], rank: Callable[[Sequence[S]], Sequence[float]], count: int
) -> list[Architecture]:
    """The population: the fittest so far, ties to the earlier."""
    fitness = rank([candidate for _, candidate in scored])
    order = sorted(range(len(scored)), key=lambda i: -fitness[i])
    return [scored[i][0] for i in order[:count]]


def _child(
    space: SearchSpace, parents: Sequence[Architecture], config: EvolutionConfig, rng: random.Random
) -> Architecture:
    child = rng.choice(parents)
    if rng.random() < config.crossover:
        child = space.crossover(child, rng.choice(parents), rng)
    return space.mutate(child, rng, config.mutation)


def _newcomer(
    space: SearchSpace,
    cost: Callable[[Architecture], Cost],
    budget: Budget,
    rng: random.Random,
    seen: set[str],
) -> Architecture | None:
    """A feasible member not met before; None where chance finds no further one."""
    try:
        return _unseen(lambda: find_feasible(space, cost, budget, rng), seen)
    except BudgetError:
        if not seen:
            raise
        return None


def _unseen(
    draw: Callable[[], Architecture], seen: set[str], accept: Callable[[Architecture], bool] = lambda _: True
) -> Architecture | None:
    for _ in range(_CHILD_TRIES):
        architecture = draw()
        if architecture.key not in seen and accept(architecture):
            return architecture
    return None


def find_feasible(
    space: SearchSpace, cost: Callable[[Architecture], Cost], budget: Budget, rng: random.Random
) -> Architecture:
    """A random member within budget; where random draws find none, one reached by descent on the excess."""
    for _ in range(_RANDOM_TRIES):
        architecture = space.sample(rng)
        if not budget.violations(cost(architecture)):
            return architecture
    misses = []
    for _ in range(_DESCENTS):
        architecture = _descend(space, space.sample(rng), cost, budget, rng)
        if not budget.violations(cost(architecture)):
            return architecture
        misses.append(architecture)
    raise _unreachable(space, min(misses, key=lambda a: budget.excess(cost(a))), cost, budget)


def _descend(
    space: SearchSpace,
    architecture: Architecture,
    cost: Callable[[Architecture], Cost],
    budget: Budget,
    rng: random.Random,
) -> Architecture:
    """Set gene after gene to what exceeds the budget least, until none helps or the budget is met."""
    improved = True
    while improved and budget.violations(cost(architecture)):
        improved = False
        for gene in rng.sample(space.genes, len(space.genes)):
            options = [space.make(architecture.choices | {gene.name: choice}) for choice in gene.choices]
            least = min(options, key=lambda a: budget.excess(cost(a)))
            if budget.excess(cost(least)) < budget.excess(cost(architecture)):
                architecture, improved = least, True
            if not budget.violations(cost(architecture)):
                break
    return architecture


def _unreachable(
    space: SearchSpace, nearest_miss: Architecture, cost: Callable[[Architecture], Cost], budget: Budget
) -> BudgetError:
    found = cost(nearest_miss)
    return BudgetError(
        f"no student of space {space.name!r} meets the budget: the nearest is {space.format(nearest_miss)}, whose "
        f"{' and '.join(budget.violations(found))}; raise that limit, or offer the space smaller choices"
    )
