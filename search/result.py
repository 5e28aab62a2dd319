"""Result of a search."""

from pydantic import Field

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.budget import Budget
from edgestill.search.scorer_settings import HoldsScorerSettings


class Candidate(Frozen):
    """Scored, feasible student."""

    architecture: str  # in the space's string form
    cost: Cost
    scores: dict[str, float]
    std: dict[str, float]  # of each score over draws of the weights


class Failure(Frozen):
    """Student without a score, and the reason."""

    scorer: str  # or "cost" or "latency", if that could not be found
    architecture: str
    type: str  # out_of_memory, not_finite, dead, export, process_died, or error: and the exception's name
    reason: str


class WinnerLatency(Frozen):
    """Winner's latency as predicted, and as measured on this machine."""

    predicted_ms: float | None  # None: candidates were measured
    predicted_error: float | None  # relative; nine predictions in ten were at least as close
    measured_ms: float | None  # None: the target is another machine


class SearchResult(HoldsScorerSettings):
    space: str
    space_size: int
    scorer: str
    combine: str
    budget: Budget
    winner: Candidate
    strategy: str
    front: tuple[Candidate, ...] = Field(description="Pareto front of fitness and known costs; fittest first")
    picks: dict[str, Candidate] = Field(
        description="best candidate of each baseline's search, which had the same effort"
    )
    evaluated: int  # candidates of the winner's search, failures included
    exhaustive: bool  # True if every member within budget was evaluated
    failures: tuple[Failure, ...]  # of all searches
    candidates: tuple[Candidate, ...]  # all scored by the winner's search, in the order met
    notes: tuple[str, ...]
    latency: WinnerLatency | None = None  # of the winner, if the budget limits latency
