"""Enumeration of every member within budget; used for any small space."""

from typing import Literal

from pydantic import Field

from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import Frozen
from edgestill.search.strategies.base import Progress, S, Search
from edgestill.search.strategies.feasible import unreachable


class ExhaustiveConfig(Frozen):
    """Enumeration of every member; `search.evaluations` does not bound it."""

    name: Literal["exhaustive"] = "exhaustive"
    limit: int = Field(10_000, ge=1, description="maximum number of members to enumerate; a larger space is refused")


def enumerate_all(search: Search[S], config: ExhaustiveConfig) -> list[S]:
    """Score all feasible members in the order of the gene table.

    Raises:
        BudgetError: no member is within budget.
        ConfigError: the space has more members than `config.limit`.
    """
    space = search.space
    if space.size > config.limit:
        raise ConfigError(
            [
                f"search.strategy.limit: space {space.name!r} has {space.size:,} members, more than the "
                f"{config.limit:,} that exhaustive looks at; raise the limit, offer the space fewer choices, or use "
                "evolution"
            ]
        )
    feasible = [architecture for architecture in space.all_architectures() if search.is_feasible(architecture)]
    if not feasible:
        raise unreachable(search, min(space.all_architectures(), key=search.excess))
    return [result for _, result in Progress(search).score(feasible, total=len(feasible))]
