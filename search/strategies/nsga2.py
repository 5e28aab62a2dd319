"""NSGA-II: evolution towards the whole front of score and costs instead of towards one winner.

Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions
on Evolutionary Computation 6(2), 2002. Ours: genes are categories, so crossover and mutation are the space's; the
budget is hard, so members above it are never bred rather than ranked last; none is scored twice.
"""

import functools
from typing import Generic, Literal, NamedTuple

from pydantic import Field

from pipeline.frozen import Frozen
from search.pareto import crowding_distances, objectives, sort_by_dominance
from search.space import Architecture
from search.strategies.base import Progress, S, Search


class Nsga2Config(Frozen):
    """The front of fitness and costs by non-dominated sorting and crowding."""

    name: Literal["nsga2"] = "nsga2"
    population: int = Field(24, ge=2, le=100_000, description="and as many children a generation")
    crossover: float = Field(0.9, ge=0, le=1, description="probability of a second parent")
    mutation: float | None = Field(None, gt=0, le=1, description="of each gene; null is 1 / genes")


class _Member(NamedTuple, Generic[S]):
    architecture: Architecture
    result: S
    standing: tuple[int, float]  # front, then crowding distance negated: lower is better


def nsga2(search: Search[S], config: Nsga2Config) -> list[S]:
    """A population by chance, then generation after generation the best of parents and children together."""
    progress = Progress(search)
    population: list[_Member[S]] = []
    while progress.left:
        missing = config.population - len(population)
        if missing > 0:
            batch = progress.take(missing)
        else:
            batch = progress.take(config.population, functools.partial(_child, search, population, config))
        if not batch:
            break
        parents = [(member.architecture, member.result) for member in population]
        population = _survivors(search, parents + progress.score(batch), config.population)
    return [result for _, result in progress.scored]


def _survivors(search: Search[S], candidates: list[tuple[Architecture, S]], count: int) -> list[_Member[S]]:
    """The first so many by front, then by crowding distance within it."""
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
    """The better of two drawn uniformly; of equals the one drawn first."""
    drawn = (search.rng.choice(population), search.rng.choice(population))
    return min(drawn, key=lambda member: member.standing).architecture
