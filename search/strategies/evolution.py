"""Evolution with truncation selection under hard budgets, as DisWOT describes it, bred in generations.

The published code differs: its NAS-Bench-201 search takes parents from the five worst of eight, starts from 36
copies of one architecture, and never checks a child's FLOPs. A generation's children are bred before any of them is
scored, so that they can be scored in parallel. Their number is part of the configuration, so that the result does not
depend on the number of processes.
"""

import functools
import random
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from edgestill.pipeline.frozen import Frozen
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.strategies.base import Progress, S, Search


class EvolutionConfig(Frozen):
    """DisWOT's search: truncation selection, crossover, mutation."""

    name: Literal["evolution"] = "evolution"
    population: int = Field(36, ge=2, le=100_000, description="number of candidates drawn before any is bred")
    parents: int = Field(10, ge=1, description="number of parents, the best of the population")
    offspring: int = Field(8, ge=1, le=100_000, description="children bred per generation, scored in parallel")
    crossover: float = Field(0.5, ge=0, le=1, description="probability that a second parent is drawn")
    mutation: float | None = Field(
        None,
        gt=0,
        le=1,
        description="mutation probability of each gene; null takes 1 / number of genes with several choices",
    )


def evolve(search: Search[S], config: EvolutionConfig) -> list[S]:
    """Fill the population at random, then breed children of its best; it is the fittest of all scored so far."""
    progress = Progress(search)
    while progress.left:
        missing = config.population - len(progress.scored)
        if missing > 0:
            batch = progress.take(min(missing, progress.left))
        else:
            parents = _best(search, progress.scored, config.population)[: config.parents]
            breed = functools.partial(breed_child, search.space, parents, config.crossover, config.mutation, search.rng)
            batch = progress.take(min(config.offspring, progress.left), breed)
        if not batch:
            break
        progress.score(batch)
    return [result for _, result in progress.scored]


def breed_child(
    space: SearchSpace,
    parents: Sequence[Architecture],
    crossover: float,
    mutation: float | None,
    rng: random.Random,
) -> Architecture:
    """Breed a child of one or two of the parents, chosen uniformly."""
    child = rng.choice(parents)
    if rng.random() < crossover:
        child = space.crossover(child, rng.choice(parents), rng)
    return space.mutate(child, rng, mutation)


def _best(search: Search[S], scored: Sequence[tuple[Architecture, S]], count: int) -> list[Architecture]:
    """Return the population: the fittest so far; ties go to the earlier."""
    fitness = search.rank([candidate for _, candidate in scored])
    order = sorted(range(len(scored)), key=lambda i: -fitness[i])
    return [scored[i][0] for i in order[:count]]
