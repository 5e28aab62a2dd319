"""Input of every strategy, and the bookkeeping shared by strategies."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from edgestill.pipeline.errors import BudgetError
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.space import Architecture
from edgestill.search.strategies.feasible import Bounds, find_feasible

_TRIES = 200  # draws without a new member, after which a source counts as exhausted


class Scored(Protocol):
    @property
    def cost(self) -> Cost: ...


S = TypeVar("S", bound=Scored)


@dataclass(frozen=True)
class Search(Bounds, Generic[S]):
    """Input of a strategy.

    A strategy is a function of a `Search` and its own configuration, and returns all scored candidates in order. It
    must score members within budget only (`is_feasible`), none twice and at most `evaluations` of them. It must draw
    from `rng` alone and not depend on the speed of scoring, so that a seed gives one result on any number of
    processes. It raises BudgetError if it finds no member within budget.
    """

    # Yields results in the order given, each as soon as it and those before it are done; None if a candidate failed,
    # which uses up an evaluation. The candidates of one call are scored in parallel.
    score: Callable[[Sequence[Architecture]], Iterable[S | None]]
    rank: Callable[[Sequence[S]], Sequence[float]]  # fitness, higher is better; may depend on the whole list
    evaluations: int  # candidates that may be scored
    rng: random.Random
    tick: Callable[[int, int], None] = lambda done, total: None  # after every evaluation
    first: Sequence[Architecture] = ()  # taken before any other by `Progress.take`, those within budget


class Progress(Generic[S]):
    """Members met and scored so far by a strategy."""

    def __init__(self, search: Search[S]) -> None:
        self._search = search
        self._seen: set[str] = set()
        self._first = list(reversed(search.first))
        self.scored: list[tuple[Architecture, S]] = []
        self.evaluations = 0

    @property
    def left(self) -> int:
        return self._search.evaluations - self.evaluations

    def score(self, architectures: Sequence[Architecture], total: int | None = None) -> list[tuple[Architecture, S]]:
        """Score the architectures; keep and return the successful ones with their results."""
        found = []
        for architecture, result in zip(architectures, self._search.score(architectures), strict=True):
            self.evaluations += 1
            if result is not None:
                found.append((architecture, result))
            self._search.tick(self.evaluations, total or self._search.evaluations)
        self.scored += found
        return found

    def take(self, count: int, *draws: Callable[[], Architecture]) -> list[Architecture]:
        """Take `count` new feasible members: the search's first, then each from the first of `draws`, else at random.

        Fewer are returned only if random draws find no more. They count as met from now on.

        Raises:
            BudgetError: no member within budget is found, and none was met before.
        """
        taken: list[Architecture] = []
        while len(taken) < count:
            fresh = self._given()
            for draw in draws:
                fresh = fresh or self._unseen(draw, self._search.is_feasible)
            fresh = fresh or self._newcomer()
            if fresh is None:
                break
            self._seen.add(fresh.key)
            taken.append(fresh)
        return taken

    def admit(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """Return the feasible architectures not met before; they count as met from now on."""
        taken = []
        for architecture in architectures:
            if architecture.key not in self._seen and self._search.is_feasible(architecture):
                self._seen.add(architecture.key)
                taken.append(architecture)
        return taken

    def release(self, architectures: Sequence[Architecture]) -> None:
        """Forget architectures taken but not to be scored."""
        self._seen -= {architecture.key for architecture in architectures}

    def _given(self) -> Architecture | None:
        while self._first:
            architecture = self._first.pop()
            if architecture.key not in self._seen and self._search.is_feasible(architecture):
                return architecture
        return None

    def _newcomer(self) -> Architecture | None:
        try:
            return self._unseen(lambda: find_feasible(self._search, self._search.rng))
        except BudgetError:
            if not self._seen:
                raise
            return None

    def _unseen(
        self, draw: Callable[[], Architecture], accept: Callable[[Architecture], bool] = lambda _: True
    ) -> Architecture | None:
        for _ in range(_TRIES):
            architecture = draw()
            if architecture.key not in self._seen and accept(architecture):
                return architecture
        return None
