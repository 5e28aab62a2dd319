"""Table of search strategies: each is a file and a line here, or of another package."""

from collections.abc import Callable
from typing import Any

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.plugins import Table, require_config, require_pair
from edgestill.search.strategies.base import Search
from edgestill.search.strategies.evolution import EvolutionConfig, evolve
from edgestill.search.strategies.exhaustive import ExhaustiveConfig, enumerate_all
from edgestill.search.strategies.nni_regularized import NniRegularizedConfig, regularized_evolution
from edgestill.search.strategies.nsga2 import Nsga2Config, nsga2
from edgestill.search.strategies.random import RandomConfig, draw_randomly

Line = tuple[type[Frozen], Callable[[Search[Any], Any], list[Any]]]


def _line(name: str, found: Any) -> Line:
    config, strategy = require_pair(found, "function of a Search and that configuration")
    require_config(config, name, Frozen)
    return config, strategy


# name -> (configuration class with that literal as its `name`, function of a Search and that configuration)
STRATEGIES: Table[Line] = Table("strategies", _line, {
    "evolution": (EvolutionConfig, evolve),
    "exhaustive": (ExhaustiveConfig, enumerate_all),
    "random": (RandomConfig, draw_randomly),
    "nsga2": (Nsga2Config, nsga2),
    "nni_regularized": (NniRegularizedConfig, regularized_evolution),
})  # fmt: skip


def run_strategy(search: Search[Any], config: Any) -> list[Any]:
    """Run a strategy, or enumerate a space of at most `search.evaluations` members; return the scored candidates.

    Raises:
        BudgetError: no member within budget was found; names the limit and the nearest miss.
    """
    if is_exhaustive(search.space.size, search.evaluations, config):
        limit = search.evaluations if config.name != "exhaustive" else config.limit
        return enumerate_all(search, ExhaustiveConfig(limit=limit))
    return STRATEGIES[config.name][1](search, config)


def is_exhaustive(size: int, evaluations: int, config: Any) -> bool:
    """True if every feasible member of a space of this size is evaluated."""
    return bool(config.name == "exhaustive") or size <= evaluations


__all__ = [
    "STRATEGIES",
    "EvolutionConfig",
    "ExhaustiveConfig",
    "NniRegularizedConfig",
    "Nsga2Config",
    "RandomConfig",
    "Search",
    "is_exhaustive",
    "run_strategy",
]
