"""Evolution on synthetic scores, whose optimum and whose feasible members are known."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgestill.pipeline.errors import BudgetError
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.budget import Budget
from edgestill.search.conformance import strategies
from edgestill.search.conformance.strategies import Scored, values
from edgestill.search.strategies import EvolutionConfig, Search, run_strategy


class Grid(strategies.Grid):
    """Five genes of six choices, or others; it remembers the parents of its mutants."""

    def __init__(self, genes=5, choices=6):
        super().__init__(genes, choices)
        self.parents = []

    def mutate(self, parent, rng, rate=None):
        self.parents.append(parent)
        return super().mutate(parent, rng, rate)


def additive_cost(architecture):
    """Strictly rising in every gene, each with a weight of its own."""
    params = 10 + sum((i + 1) * v for i, v in enumerate(values(architecture)))
    flops = 5 + sum((9 - i) * v * v for i, v in enumerate(values(architecture)))
    return Cost(params=params, flops=flops)


EFFORT = EvolutionConfig(population=20, parents=5, offspring=5)


def run(
    space,
    value,
    budget=None,
    config=EFFORT,
    seed=0,
    cost=additive_cost,
    fails=lambda a: False,
    evaluations=400,
    tick=lambda done, total: None,
):
    def score(architectures):
        return [None if fails(a) else Scored(a, value(a), cost(a)) for a in architectures]

    search = Search(
        space,
        cost,
        budget or Budget(),
        score=score,
        rank=lambda scored: [s.value for s in scored],
        evaluations=evaluations,
        rng=random.Random(seed),
        tick=tick,
    )
    return run_strategy(search, config)


def distance_to(target):
    return lambda architecture: -sum(abs(v - t) for v, t in zip(values(architecture), target, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_it_reaches_the_optimum_of_a_space_twenty_times_its_effort(seed):
    target = (3, 1, 5, 0, 2)
    found = run(Grid(), distance_to(target), seed=seed)
    assert Grid().size == 7776
    assert len(found) == 400
    assert max(found, key=lambda s: s.value).value == 0


@pytest.mark.parametrize("seed", range(5))
def test_it_reaches_the_best_feasible_member_under_a_budget(seed):
    budget = Budget(max_params=35, max_flops=120)
    space, target = Grid(), distance_to((5, 5, 5, 5, 5))
    feasible = [a for a in space.all_architectures() if not budget.violations(additive_cost(a))]
    best = max(map(target, feasible))
    assert 50 < len(feasible) < space.size / 2
    assert max(s.value for s in run(space, target, budget, seed=seed)) == best


@given(
    max_params=st.integers(11, 50),
    max_flops=st.integers(6, 300),
    seed=st.integers(0, 10**6),
    population=st.integers(2, 15),
    crossover=st.floats(0, 1),
    mutation=st.none() | st.floats(0.01, 1),
)
@settings(max_examples=30, deadline=None)
def test_whatever_the_budget_only_feasible_members_come_and_none_twice(
    max_params, max_flops, seed, population, crossover, mutation
):
    budget = Budget(max_params=max_params, max_flops=max_flops)
    config = EvolutionConfig(population=population, parents=3, crossover=crossover, mutation=mutation)
    space = Grid(genes=4, choices=4)
    feasible = {a.key for a in space.all_architectures() if not budget.violations(additive_cost(a))}
    found = run(space, distance_to((3, 3, 3, 3)), budget, config, seed, evaluations=30)
    keys = [s.architecture.key for s in found]
    assert set(keys) <= feasible
    assert len(set(keys)) == len(keys)
    assert len(keys) >= 0.75 * min(30, len(feasible))


def test_a_space_no_larger_than_the_effort_is_enumerated():
    space = Grid(genes=3, choices=4)
    found = run(space, distance_to((0, 0, 0)), evaluations=64)
    assert [s.architecture for s in found] == list(space.all_architectures())
    assert space.parents == []
    budget = Budget(max_params=15)
    cheap = [a for a in space.all_architectures() if additive_cost(a).params <= 15]
    assert [s.architecture for s in run(space, distance_to((0, 0, 0)), budget, evaluations=64)] == cheap


def test_parents_are_of_the_best_so_far():
    space, target = Grid(), distance_to((3, 1, 5, 0, 2))
    history = []

    def value(architecture):
        history.append((len(space.parents), architecture))
        return target(architecture)

    run(space, value, config=EvolutionConfig(population=20, parents=4, offspring=1, crossover=0), evaluations=200)
    met = [architecture for _, architecture in history]
    for born, (parents_before, _) in itertools.islice(enumerate(history), 20, None):
        drawn = space.parents[history[born - 1][0] : parents_before]
        ranked = sorted((target(a) for a in met[:born]), reverse=True)
        assert drawn
        assert all(target(parent) >= ranked[3] for parent in drawn)


def test_without_crossover_a_child_is_one_step_from_a_parent():
    space = Grid()
    met = []

    def value(architecture):
        met.append((space.parents[-1] if space.parents else None, architecture))
        return 0.0

    run(space, value, config=EvolutionConfig(population=10, offspring=1, crossover=0, mutation=1e-9), evaluations=80)
    for parent, child in met[10:]:
        assert sum(a != b for a, b in zip(values(parent), values(child), strict=True)) == 1


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_failures_use_up_effort_but_do_not_end_the_search(share):
    space = Grid()

    def fails(architecture):
        return random.Random(architecture.key).random() < share

    asked = []

    def counted(architecture):
        asked.append(architecture)
        return fails(architecture)

    found = run(space, distance_to((3, 1, 5, 0, 2)), fails=counted)
    assert len({a.key for a in asked}) == len(asked) == 400
    assert [s.architecture for s in found] == [a for a in asked if not fails(a)]
    if share < 0.5:
        best = max(distance_to((3, 1, 5, 0, 2))(a) for a in space.all_architectures() if not fails(a))
        assert max(s.value for s in found) >= best - 1


def test_a_search_in_which_everything_fails_ends_with_nothing():
    assert run(Grid(), distance_to((0,) * 5), fails=lambda a: True) == []


def test_the_same_seed_gives_the_same_search():
    one, other, third = (
        [s.architecture.key for s in run(Grid(), distance_to((3, 1, 5, 0, 2)), seed=seed)] for seed in (4, 4, 5)
    )
    assert one == other != third


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        (Budget(max_params=9), "params 10 is above max_params 9"),
        (Budget(max_flops=3), "flops 5 is above max_flops 3"),
        (Budget(max_params=8, max_flops=100_000), "params 10 is above max_params 8"),
    ],
)
@pytest.mark.parametrize("choices", [3, 6])
def test_an_unreachable_budget_names_the_limit_and_the_nearest_miss(budget, limit, choices):
    """Once by enumeration and once by descent; the nearest miss is that of a brute force over the space."""
    space = Grid(choices=choices)

    def excess(architecture):
        cost = additive_cost(architecture)
        limits = ((cost.params, budget.max_params), (cost.flops, budget.max_flops))
        return sum(max(0, value / limit - 1) for value, limit in limits if limit is not None)

    nearest = space.format(min(space.all_architectures(), key=excess))
    with pytest.raises(BudgetError) as caught:
        run(space, distance_to((0,) * 5), budget)
    assert f"the nearest is {nearest}, whose {limit};" in str(caught.value)
    assert ("max_flops" in str(caught.value)) == ("max_flops" in limit)


def test_thousands_are_written_with_commas():
    with pytest.raises(BudgetError, match=r"params 1,234,567 is above max_params 1,000;"):
        run(Grid(), distance_to((0,) * 5), Budget(max_params=1000), cost=lambda a: Cost(params=1_234_567, flops=1))


@pytest.mark.parametrize("seed", range(5))
def test_rare_feasible_members_are_found_by_descent(seed):
    """4 of 1,679,616 members: two hundred random draws have a chance of 0.05 % to meet one."""
    space = Grid(genes=8, choices=6)
    budget = Budget(max_params=12)
    found = run(space, distance_to((5,) * 8), budget, EvolutionConfig(population=2), seed, evaluations=20)
    names = {space.format(s.architecture) for s in found}
    assert names == {"0-0-0-0-0-0-0-0", "1-0-0-0-0-0-0-0", "2-0-0-0-0-0-0-0", "0-1-0-0-0-0-0-0"}


def test_luck_that_runs_out_after_the_first_member_does_not_lose_it():
    """One member costs nothing and lies where no descent leads; once it is met, the budget was not unreachable."""
    space = Grid(genes=3, choices=8)
    hidden = space.parse("4-4-4")

    def cost(architecture):
        if architecture == hidden:
            return Cost(params=1, flops=1)
        apart = sum(abs(v - 4) for v in values(architecture))
        return Cost(params=1000 - apart, flops=1)

    config = EvolutionConfig(population=2)
    ended = []
    for seed in range(20):
        try:
            found = run(space, distance_to((0,) * 3), Budget(max_params=1), config, seed, cost, evaluations=100)
            ended.append([s.architecture for s in found])
        except BudgetError:
            ended.append([])
    assert all(found in ([], [hidden]) for found in ended)
    assert [hidden] in ended


def test_the_budget_counts_a_limit_that_is_just_met_as_met():
    assert Budget(max_params=10, max_flops=5).violations(Cost(params=10, flops=5)) == []
    assert Budget().violations(Cost(params=10**12, flops=10**15)) == []
    assert Budget(max_params=10, max_flops=4).excess(Cost(params=15, flops=8)) == pytest.approx(0.5 + 1)


def test_progress_is_told_once_an_evaluation():
    told = []
    run(Grid(), lambda a: 0.0, evaluations=30, tick=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 30) for i in range(30)]
