"""NSGA-II: evolution towards the whole front of score and costs instead of towards one winner.

Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions
on Evolutionary Computation 6(2), 2002: non-dominated sorting, crowding distance, binary tournament, parents and
children together compete for survival. Ours: genes are categories, so crossover and mutation are the space's; the
budget is hard, so members above it are never bred rather than ranked last; none is scored twice. Costs are known
without scoring, and two options use this. `extremes` puts the cheapest members within budget into the first
population. `pool` breeds more children than are scored, and picks those expected to widen the front the most by a
regression of scores on genes and costs. `extremes: false, pool: 1` is the paper's algorithm.
"""

import functools
from typing import Generic, Literal, NamedTuple

from pydantic import Field

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.pareto import crowding_distances, objectives, sort_by_dominance
from edgestill.search.space import Architecture
from edgestill.search.strategies.base import Progress, S, Search
from edgestill.search.strategies.feasible import cheapest, find_feasible
from edgestill.search.strategies.surrogate import pick_widening, predict


class Nsga2Config(Frozen):
    """NSGA-II: the front of fitness and costs by non-dominated sorting and crowding."""

    name: Literal["nsga2"] = "nsga2"
    population: int = Field(8, ge=2, le=100_000, description="number of members that a generation keeps")
    offspring: int = Field(4, ge=1, le=100_000, description="children bred per generation, scored in parallel")
    crossover: float = Field(0.9, ge=0, le=1, description="probability that a second parent is drawn")
    mutation: float | None = Field(
        None,
        gt=0,
        le=1,
        description="mutation probability of each gene; null takes 1 / number of genes with several choices",
    )
    extremes: bool = Field(
        True, description="put the cheapest member found, by each known cost, into the first population"
    )
    pool: int = Field(
        10, ge=1, le=1000, description="candidates proposed for each one scored; 1 scores every child, as in the paper"
    )


class _Member(NamedTuple, Generic[S]):
    architecture: Architecture
    result: S
    standing: tuple[int, float]  # front, then crowding distance negated: lower is better


class _Priced(NamedTuple):
    cost: Cost


def nsga2(search: Search[S], config: Nsga2Config) -> list[S]:
    """Draw a random population, then keep the best of parents and children in each generation."""
    progress = Progress(search)
    first = min(config.population, (search.evaluations + 1) // 2)
    batch = progress.admit(_extremes(search)[:first]) if config.extremes else []
    batch += progress.take(first - len(batch))
    population: list[_Member[S]] = []
    while batch:
        parents = [(member.architecture, member.result) for member in population]
        population = _survivors(search, parents + progress.score(batch), config.population)
        count = min(config.offspring if population else first, progress.left)
        batch = _children(search, progress, population, config, count) if population else progress.take(count)
    return [result for _, result in progress.scored]


def _extremes(search: Search[S]) -> list[Architecture]:
    """Return for each known cost a member within budget; no change of a single gene makes it cheaper."""
    start = find_feasible(search, search.rng)
    known = [name for name in Cost.model_fields if isinstance(getattr(search.cost(start), name), int | float)]
    return [cheapest(search, start, name) for name in known]


def _children(
    search: Search[S], progress: Progress[S], population: list[_Member[S]], config: Nsga2Config, count: int
) -> list[Architecture]:
    """Return `count` children: those of a pool, a fifth of it random, predicted to widen the front most."""
    breed = functools.partial(_child, search, population, config)
    if config.pool == 1:
        return progress.take(count, breed)
    size = count * config.pool
    pool = progress.take(size - size // 5, breed)
    pool += progress.take(size // 5) if len(pool) == size - size // 5 else []
    if len(pool) <= count:
        return pool
    fitness = search.rank([result for _, result in progress.scored])
    known = [(a, result.cost, value) for (a, result), value in zip(progress.scored, fitness, strict=True)]
    costs = [_Priced(search.cost(architecture)) for architecture in pool]
    guessed = predict(search.space, known, [(a, priced.cost) for a, priced in zip(pool, costs, strict=True)])
    points = objectives([*(result for _, result in progress.scored), *costs], [*fitness, *guessed])
    chosen = pick_widening(points[: len(known)], points[len(known) :], count, search.rng)
    chosen += [i for i in range(len(pool)) if i not in chosen][: count - len(chosen)]
    progress.release([architecture for i, architecture in enumerate(pool) if i not in chosen])
    return [pool[i] for i in chosen]


def _survivors(search: Search[S], candidates: list[tuple[Architecture, S]], count: int) -> list[_Member[S]]:
    """Return the first `count` members by front, then by crowding distance within the front."""
    if not candidates:
        return []
    results = [result for _, result in candidates]
    points = objectives(results, search.rank(results))
    members: list[_Member[S]] = []
    for number, front in enumerate(sort_by_dominance(points)):
        if len(members) >= count:
            break
        distances = zip(front, crowding_distances(points[front]), strict=True)
        found = [_Member(*candidates[i], (number, -distance)) for i, distance in distances]
        members += sorted(found, key=lambda member: member.standing)
    return members[:count]


def _child(search: Search[S], population: list[_Member[S]], config: Nsga2Config) -> Architecture:
    child = _tournament(search, population)
    if search.rng.random() < config.crossover:
        child = search.space.crossover(child, _tournament(search, population), search.rng)
    return search.space.mutate(child, search.rng, config.mutation)


def _tournament(search: Search[S], population: list[_Member[S]]) -> Architecture:
    """Return the better of two members drawn uniformly; of equals the one drawn first."""
    drawn = (search.rng.choice(population), search.rng.choice(population))
    return min(drawn, key=lambda member: member.standing).architecture
