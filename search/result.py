"""What a search hands on."""

from pydantic import Field

from pipeline.cost import Cost
from pipeline.frozen import Frozen
from search.config import Budget


class Candidate(Frozen):
    """A scored, feasible student."""

    architecture: str  # in the space's string form
    cost: Cost
    scores: dict[str, float]
    std: dict[str, float]  # of the scores over draws


class Failure(Frozen):
    """A student that a scorer could not score, and why."""

    scorer: str  # or "cost", where what it costs could not be had
    architecture: str
    type: str  # out_of_memory, not_finite, dead, export, process_died, or error: and the exception's name
    reason: str


class WinnerLatency(Frozen):
    """What the winner's latency was thought to be, and what it is on this machine."""

    predicted_ms: float | None  # None: candidates were measured
    predicted_error: float | None  # relative; nine predictions in ten were as close or closer
    measured_ms: float | None  # None: the target is another machine


class SearchResult(Frozen):
    space: str
    space_size: int
    scorer: str
    combine: str
    budget: Budget
    winner: Candidate
    strategy: str
    front: tuple[Candidate, ...] = Field(description="no candidate is fitter at no higher known cost; fittest first")
    picks: dict[str, Candidate] = Field(description="what each baseline would have picked, with the same effort")
    evaluated: int  # by the winner's search, failures included
    exhaustive: bool  # every member of the space that is within budget was looked at
    failures: tuple[Failure, ...]  # of all searches
    candidates: tuple[Candidate, ...]  # all that the winner's search scored, in the order met
    notes: tuple[str, ...]
    latency: WinnerLatency | None = None  # of the winner, where the budget limits it
