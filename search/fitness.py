"""Fitness of a population: the values that a search selects by, and the order and the front that follow."""

from collections.abc import Sequence
from typing import Any

from edgestill.pipeline.frozen import Frozen
from edgestill.search.pareto import objectives, pareto_front
from edgestill.search.result import Candidate, SearchResult
from edgestill.search.scorer_settings import scorer_config
from edgestill.search.scorers import SCORERS


def fitness(candidates: Sequence[Candidate], scorer: str, config: Frozen) -> list[float]:
    """Return the scorer's values for selection, given all the candidates."""
    return SCORERS[scorer].fitness(config, [candidate.scores for candidate in candidates])


def fitness_of(found: SearchResult) -> list[float]:
    """Return the values by which a finished search chose among its candidates; plain scores if its scorer is gone."""
    if found.scorer not in SCORERS:
        return [candidate.scores[found.scorer] for candidate in found.candidates]
    return fitness(found.candidates, found.scorer, _config_of(found))


def fitness_name_of(found: SearchResult) -> str:
    """Name of these values in a chart."""
    return SCORERS[found.scorer].fitness_name(_config_of(found)) if found.scorer in SCORERS else found.scorer


def _config_of(found: SearchResult) -> Any:
    return scorer_config(found.scorer, found.combine, found.scorer_settings)


def ranked(candidates: Sequence[Candidate], values: Sequence[float]) -> list[Candidate]:
    """Sort the fittest first; ties go to fewer parameters, then to the alphabet."""
    pairs = zip(values, candidates, strict=True)
    ordered = sorted(pairs, key=lambda pair: (-pair[0], pair[1].cost.params, pair[1].architecture))
    return [candidate for _, candidate in ordered]


def front(candidates: Sequence[Candidate], values: Sequence[float]) -> tuple[Candidate, ...]:
    """Pareto front of fitness and known costs, the fittest first."""
    places = pareto_front(objectives(candidates, values))
    return tuple(candidates[i] for i in sorted(places, key=lambda i: -values[i]))
