"""Checks of a strategy: it keeps the contract of `search/strategies/base.py`, on scores that are known."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from edgestill.pipeline.conformance.suite import Check, require
from edgestill.pipeline.errors import ArchitectureError, BudgetError
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.networks.network import BlockClassifier
from edgestill.pipeline.task import Task
from edgestill.search.budget import Budget
from edgestill.search.config import SearchConfig
from edgestill.search.space import Architecture, Gene, SearchSpace
from edgestill.search.strategies import STRATEGIES, Search, is_exhaustive, run_strategy


class Grid(SearchSpace):
    """Genes a, b, c, … of equal choices; never built."""

    name = "grid"
    spelt = "{}"  # the name of each gene, from its letter

    def __init__(self, genes: int = 4, choices: int = 4) -> None:
        self.genes = tuple(Gene(self.spelt.format("abcdefgh"[i]), tuple(range(choices))) for i in range(genes))

    def build(self, architecture: Architecture, task: Task) -> BlockClassifier:
        raise AssertionError("a strategy has no business building networks")

    def format(self, architecture: Architecture) -> str:
        return "-".join(map(str, values(architecture)))

    def parse(self, text: str) -> Architecture:
        try:
            return self.make({gene.name: int(n) for gene, n in zip(self.genes, text.split("-"), strict=True)})
        except ValueError:
            raise ArchitectureError(text) from None

    def embedding_dims(self) -> frozenset[int]:
        return frozenset({1})


class Scored(NamedTuple):
    architecture: Architecture
    value: float
    cost: Cost


class Told(NamedTuple):
    """Result of a strategy, the members that it had scored, and its ticks."""

    found: list[Scored]
    asked: list[Architecture]
    ticks: list[tuple[int, int]]


def values(architecture: Architecture) -> list[int]:
    return list(architecture.choices.values())


def cost_of(architecture: Architecture) -> Cost:
    params = 10 + sum((i + 1) * v for i, v in enumerate(values(architecture)))
    flops = 5 + sum((9 - i) * v * v for i, v in enumerate(values(architecture)))
    return Cost(params=params, flops=flops)


def peak(architecture: Architecture) -> float:
    """Highest where every gene is 2, inside the space."""
    own = values(architecture)
    return -sum((v - 2) ** 2 for v in own) + 0.5 * (own[0] == own[-1])


def failing(share: float) -> Callable[[Architecture], bool]:
    """Function that is true of this share of the members, the same each time."""
    return lambda architecture: random.Random(architecture.key).random() < share


def run(
    name: str,
    space: SearchSpace | None = None,
    budget: Budget | None = None,
    evaluations: int = 100,
    seed: int = 0,
    fails: Callable[[Architecture], bool] = lambda a: False,
    cost: Callable[[Architecture], Cost] = cost_of,
    value: Callable[[Architecture], float] = peak,
    first: Sequence[Architecture] = (),
) -> Told:
    told = Told([], [], [])

    def score(architectures: Sequence[Architecture]) -> Iterator[Scored | None]:
        for a in architectures:
            told.asked.append(a)
            yield None if fails(a) else Scored(a, value(a), cost_of(a))

    search: Search[Any] = Search(
        space or Grid(),
        cost,
        budget or Budget(),
        score=score,
        rank=lambda found: [s.value for s in found],
        evaluations=evaluations,
        rng=random.Random(seed),
        tick=lambda done, total: told.ticks.append((done, total)),
        first=first,
    )
    return told._replace(found=run_strategy(search, STRATEGIES[name][0].model_validate({"name": name})))


def its_name_alone_chooses_it(name: str) -> None:
    default = STRATEGIES[name][0].model_validate({"name": name})
    for given in (name, {"name": name}):
        chosen = SearchConfig.model_validate({"strategy": given}).strategy
        require(chosen == default, f"search.strategy={given} chooses {chosen}")


def a_seed_repeats_it(name: str) -> None:
    require(run(name, seed=1).asked == run(name, seed=1).asked, "the same seed has other members scored")


def it_scores_feasible_members_alone_and_none_twice(name: str) -> None:
    budget = Budget(max_params=30, max_flops=90)
    for seed in range(4):
        found, asked, ticks = run(name, budget=budget, seed=seed)
        beyond = [a for a in asked if budget.violations(cost_of(a))]
        require(not beyond, f"{len(beyond)} of {len(asked)} scored members are beyond the budget")
        require(len({a.key for a in asked}) == len(asked), "a member was scored twice")
        require([s.architecture for s in found] == asked, "it does not return all that was scored, in order")
        require([done for done, _ in ticks] == list(range(1, len(asked) + 1)), "ticks do not count the evaluations")


def it_scores_no_more_members_than_it_may(name: str) -> None:
    limit = Grid().size if is_exhaustive(10**9, 60, STRATEGIES[name][0].model_validate({"name": name})) else 60
    for share in (0.0, 1.0):
        asked = run(name, evaluations=60, fails=failing(share)).asked
        require(0 < len(asked) <= limit, f"{len(asked)} members were scored, of {limit} allowed")


def failed_members_are_not_in_its_result(name: str) -> None:
    fails = failing(0.3)
    found, asked, _ = run(name, evaluations=150, fails=fails)
    require([s.architecture for s in found] == [a for a in asked if not fails(a)], "its result holds others")


def an_unreachable_budget_is_an_error_that_names_the_nearest_miss(name: str) -> None:
    try:
        run(name, budget=Budget(max_params=9))
    except BudgetError as error:
        nearest = "the nearest is 0-0-0-0, whose params 10 is above max_params 9"
        require(nearest in str(error), f"the error does not say that {nearest}: {error}")
        return
    require(False, "it found a student within a budget that none meets")


CHECKS: tuple[Check, ...] = (
    its_name_alone_chooses_it,
    a_seed_repeats_it,
    it_scores_feasible_members_alone_and_none_twice,
    it_scores_no_more_members_than_it_may,
    failed_members_are_not_in_its_result,
    an_unreachable_budget_is_an_error_that_names_the_nearest_miss,
)
