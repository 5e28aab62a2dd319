"""Every strategy of the table, on synthetic scores whose best member and whose front are known."""

import random

import numpy as np
import pytest

from edgestill.pipeline.errors import CandidateError, ConfigError
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.budget import Budget
from edgestill.search.conformance import strategies
from edgestill.search.conformance.strategies import Grid, Scored, cost_of, failing, peak, run, values
from edgestill.search.pareto import crowding_distances, objectives, pareto_front, sort_by_dominance
from edgestill.search.strategies import (
    STRATEGIES,
    EvolutionConfig,
    ExhaustiveConfig,
    Nsga2Config,
    RandomConfig,
    Search,
    is_exhaustive,
)
from edgestill.search.strategies.surrogate import pick_widening, predict

SAMPLERS = [name for name in STRATEGIES if name != "exhaustive"]  # those that look at a part of the space


@pytest.mark.parametrize("name", STRATEGIES)
class TestEveryStrategy:
    @pytest.mark.parametrize("check", strategies.CHECKS, ids=lambda check: check.__name__)
    def test_it_passes(self, check, name):
        check(name)

    def test_another_seed_takes_another_way(self, name):
        one, other = (run(name, seed=seed)[1] for seed in (1, 2))
        assert (one != other) == (name != "exhaustive")

    @pytest.mark.parametrize("seed", range(4))
    def test_as_many_feasible_members_are_scored_as_there_are_or_may_be(self, name, seed):
        budget = Budget(max_params=30, max_flops=90)
        _, asked, told = run(name, budget=budget, seed=seed)
        assert {total for _, total in told} == {len(asked)} if name == "exhaustive" else {100}
        feasible = sum(not budget.violations(cost_of(a)) for a in Grid().all_architectures())
        expected = feasible if name == "exhaustive" else min(100, feasible)
        if name == "nni_regularized":  # NNI's own engine mutates blindly, and stops when that finds nothing new
            assert expected / 2 < len(asked) <= expected
        else:
            assert len(asked) == expected

    def test_the_best_is_met_when_effort_allows(self, name):
        found, asked, _ = run(name, evaluations=230)
        assert len(asked) == (256 if name == "exhaustive" else 230)
        best = max(peak(a) for a in Grid().all_architectures())
        reached = max(s.value for s in found)
        assert reached == best or name == "random"

    def test_a_space_no_larger_than_the_effort_is_enumerated(self, name):
        found, _, _ = run(name, evaluations=256)
        assert [s.architecture for s in found] == list(Grid().all_architectures())

    def test_no_failure_is_ranked_and_the_best_of_the_rest_is_found(self, name):
        fails = failing(0.3)
        found, asked, _ = run(name, evaluations=256, fails=fails)
        assert [s.architecture for s in found] == [a for a in asked if not fails(a)]
        assert 50 < len(asked) - len(found) < 110
        healthy = run(name, evaluations=256)[0]
        rest = [s for s in healthy if not fails(s.architecture)]
        assert max(found, key=lambda s: s.value) == max(rest, key=lambda s: s.value)

    def test_with_a_third_failing_a_part_of_the_space_is_enough(self, name):
        fails = failing(0.3)
        best = max(peak(a) for a in Grid().all_architectures() if not fails(a))
        reached = []
        for seed in range(5):
            found, asked, _ = run(name, evaluations=150, fails=fails, seed=seed)
            assert len(asked) == (256 if name == "exhaustive" else 150)
            assert not any(fails(s.architecture) for s in found)
            reached.append(max(s.value for s in found) == best)
        assert sum(reached) >= (1 if name == "random" else 5)

    def test_a_search_in_which_everything_fails_ends_with_nothing(self, name):
        found, asked, _ = run(name, evaluations=60, fails=lambda a: True)
        assert found == []
        assert len(asked) == (256 if name == "exhaustive" else 60)

    def test_a_member_whose_cost_cannot_be_had_is_passed_over(self, name):
        def cost(architecture):
            if values(architecture)[0] == 2:
                raise CandidateError("has an op that does not export", "export")
            return cost_of(architecture)

        found, _, _ = run(name, cost=cost, budget=Budget(max_params=40))
        assert found
        assert not any(values(s.architecture)[0] == 2 for s in found)

    def test_one_evaluation_is_enough_to_have_a_result(self, name):
        found, asked, _ = run(name, evaluations=1)
        assert len(found) == len(asked) == (256 if name == "exhaustive" else 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_given_members_within_budget_are_scored_before_those_that_are_drawn(name):
    members, budget = list(Grid().all_architectures()), Budget(max_params=30)
    given = members[5::37]
    fit = [a for a in given if not budget.violations(cost_of(a))]
    assert 0 < len(fit) < len(given)
    _, asked, _ = run(name, budget=budget, first=[*given, given[0]])
    assert {a.key for a in fit} <= {a.key for a in asked[: len(fit) + 3]}  # nsga2 begins with the cheapest
    assert len({a.key for a in asked}) == len(asked)


def test_exhaustive_refuses_a_space_above_its_limit():
    with pytest.raises(ConfigError, match="space 'grid' has 16,777,216 members, more than the 10,000"):
        run("exhaustive", Grid(genes=8, choices=8))
    assert is_exhaustive(10**6, 10, ExhaustiveConfig())
    assert not is_exhaustive(10**6, 10, EvolutionConfig())


def test_random_draws_every_feasible_member_equally_often():
    """Chi-squared over the 11 members within budget, 3 of which each of 600 searches meets."""
    budget = Budget(max_params=14)
    feasible = [a for a in Grid().all_architectures() if not budget.violations(cost_of(a))]
    assert len(feasible) == 11
    counts = dict.fromkeys((a.key for a in feasible), 0)
    for seed in range(600):
        for architecture in run("random", budget=budget, evaluations=3, seed=seed)[1]:
            counts[architecture.key] += 1
    expected = 600 * 3 / 11
    chi_squared = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi_squared < 29.6  # 99.9 % quantile with 10 degrees of freedom


def test_random_meets_a_large_space_without_listing_it():
    _, asked, _ = run("random", Grid(genes=8, choices=8), evaluations=200)
    assert len({a.key for a in asked}) == 200


def dominates(one, other):
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("seed", range(10))
def test_sorting_by_dominance_equals_a_brute_force(seed):
    points = np.random.default_rng(seed).integers(0, 6, size=(60, 3)).astype(float)  # with ties and equal rows
    left, fronts = set(range(60)), []
    while left:
        front = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        fronts.append(sorted(front))
        left -= front
    assert sort_by_dominance(points) == fronts
    assert pareto_front(points) == fronts[0]


@pytest.mark.parametrize("seed", range(5))
def test_crowding_distances_equal_debs_by_hand(seed):
    points = np.random.default_rng(seed).random((12, 3))
    expected = np.zeros(12)
    for m in range(3):
        for i in range(12):
            lower = [p for p in points[:, m] if p < points[i, m]]
            upper = [p for p in points[:, m] if p > points[i, m]]
            if not lower or not upper:
                expected[i] = np.inf
            else:
                expected[i] += (min(upper) - max(lower)) / (points[:, m].max() - points[:, m].min())
    assert crowding_distances(points) == pytest.approx(expected)


def test_a_front_of_one_or_two_is_all_extremes():
    assert crowding_distances(np.array([[1.0, 2.0]])) == [np.inf]
    assert crowding_distances(np.array([[1.0, 2.0], [2.0, 1.0]])) == [np.inf, np.inf]


def test_objectives_are_fitness_upwards_and_costs_downwards():
    found = [Scored(None, 0.5, Cost(params=3, flops=7)), Scored(None, 0.1, Cost(params=2, flops=9))]
    assert objectives(found, [0.5, 0.1])[:, :3].tolist() == [[-0.5, 3, 7], [-0.1, 2, 9]]


def front_of(found):
    points = objectives(found, [s.value for s in found])
    return {tuple(points[i]) for i in pareto_front(points)}


def test_nsga2_meets_more_of_the_true_front_than_evolution_and_chance():
    space = Grid(genes=5, choices=4)
    everything = [Scored(a, peak(a), cost_of(a)) for a in space.all_architectures()]
    truth = front_of(everything)
    met = {
        name: np.mean(
            [len(front_of(run(name, space, evaluations=150, seed=seed)[0]) & truth) / len(truth) for seed in range(5)]
        )
        for name in SAMPLERS
    }
    assert met["nsga2"] > max(met["evolution"], met["random"])


def test_the_papers_nsga2_needs_no_guess():
    asked = run("nsga2")[1]
    plain = STRATEGIES["nsga2"][1](
        Search(
            Grid(),
            cost_of,
            Budget(),
            score=lambda these: [Scored(a, peak(a), cost_of(a)) for a in these],
            rank=lambda some: [s.value for s in some],
            evaluations=100,
            rng=random.Random(0),
        ),
        Nsga2Config(extremes=False, pool=1),
    )
    assert len({s.architecture.key for s in plain}) == len(plain) == 100
    assert [s.architecture for s in plain] != asked


def test_the_regression_recovers_a_score_that_is_additive_in_the_genes():
    space, rng = Grid(), random.Random(0)
    weights = {(gene.name, choice): rng.random() for gene in space.genes for choice in gene.choices}
    truth = [(a, cost_of(a), sum(weights[item] for item in a.choices.items())) for a in space.all_architectures()]
    rng.shuffle(truth)
    predicted = predict(space, truth[:60], [(a, cost) for a, cost, _ in truth[60:]])
    assert predicted == pytest.approx([value for _, _, value in truth[60:]], abs=0.02)


def test_what_widens_a_front_most_is_picked_first_and_what_adds_nothing_never():
    points = np.array([[0.0, 1.0], [1.0, 0.0]])
    options = np.array([[0.9, 0.9], [0.2, 0.2], [0.25, 0.25], [0.1, 0.6], [1.0, 1.0]])
    assert pick_widening(points, options, 5, random.Random(0)) == [1, 3]


def test_random_needs_no_options():
    assert RandomConfig().model_dump() == {"name": "random"}
