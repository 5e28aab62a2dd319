"""Rank correlations with their intervals, against SciPy and closed forms; and which students are asked."""

import math
import random

import numpy as np
import pytest
import scipy.stats

from edgestill.pipeline.errors import UserError
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.budget import Budget
from edgestill.search.rank_correlation import (
    RankedStudent,
    compare_with_params,
    kendall_tau,
    rank_scorers,
    spread_students,
    tau_interval,
)
from edgestill.search.scoring.cost_table import CostTable


def student(i, accuracy, **scores):
    return RankedStudent(
        architecture=f"s{i}", cost=Cost(params=i, flops=1), scores=scores, accuracy=accuracy, seconds=1.0
    )


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_tau_is_scipys_with_ties_and_without(levels):
    rng = np.random.default_rng(levels)
    one, other = rng.integers(levels, size=(2, 20, 11)).astype(float)
    found = kendall_tau(one, other)
    expected = [scipy.stats.kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_constant_score_has_no_tau():
    students = [student(i, i / 10, flat=1.0, params=i) for i in range(6)]
    flat = rank_scorers(students, ["flat", "params"])[-1]
    assert (flat.scorer, flat.tau, flat.interval, flat.n) == ("flat", None, None, 6)
    assert compare_with_params(students, "flat") is None


def test_rows_are_sorted_by_tau_and_count_the_students_without_a_score():
    students = [student(i, i / 10, params=i, down=-i, **({"half": i} if i % 2 else {})) for i in range(10)]
    students.append(student(10, None, params=0, down=0))  # whose training failed counts for nobody
    rows = rank_scorers(students, ["none", "down", "half", "params"])
    assert [(row.scorer, row.tau, row.n, row.unscored) for row in rows] == [
        ("half", 1.0, 5, 5),
        ("params", 1.0, 10, 0),
        ("down", -1.0, 10, 0),
        ("none", None, 0, 10),
    ]


@pytest.mark.parametrize("n", [4, 12])
@pytest.mark.parametrize("tau", [0, 0.5, 0.9, 0.98])
def test_the_interval_of_tau_holds_the_truth_as_often_as_it_says(n, tau):
    """600 draws of a normal population, whose tau is 2 / pi asin(rho); 92.3 % is three deviations below 95 %."""
    rho = math.sin(math.pi * tau / 2)
    one, noise = np.random.default_rng(n).normal(size=(2, 600, n))
    found = kendall_tau(one, rho * one + math.sqrt(1 - rho**2) * noise)
    intervals = {value: tau_interval(value, n) for value in found.tolist()}
    held = [intervals[value][0] <= tau <= intervals[value][1] for value in found.tolist()]
    assert np.mean(held) >= 0.923
    assert all(low <= value <= high for value, (low, high) in intervals.items())


@pytest.mark.parametrize("n", [4, 6, 12])
def test_a_perfect_order_has_an_interval_that_ends_where_chance_begins(n):
    """At its lower end a perfect order of a normal population comes by chance in 2.5 %, or a little less."""
    low, high = tau_interval(1.0, n)
    assert high == 1
    assert low < 0.9
    assert tau_interval(-1.0, n) == (-1, pytest.approx(-low))
    rho = math.sin(math.pi * low / 2)
    one, noise = np.random.default_rng(n).normal(size=(2, 4000, n))
    assert np.mean(kendall_tau(one, rho * one + math.sqrt(1 - rho**2) * noise) == 1) <= 0.033
    students = [student(i, i / n, params=i) for i in range(n)]
    assert rank_scorers(students, ["params"])[0].interval == (low, high)


@pytest.mark.parametrize("n", [5, 12])
@pytest.mark.parametrize(
    ("own", "rival", "both"), [(0, 0, 0), (0.6, 0.6, 0.8), (0, 0, -0.8), (0.95, 0.5, 0.4), (0.99, 0.99, 0.97)]
)
def test_the_interval_of_a_difference_holds_the_truth_as_often_as_it_says(n, own, rival, both):
    """300 draws of a normal population with these correlations; 91.2 % is three deviations below 95 %."""
    root = np.linalg.cholesky([[1, both, own], [both, 1, rival], [own, rival, 1]])
    truth, held = 2 / math.pi * (math.asin(own) - math.asin(rival)), 0
    for draw in np.random.default_rng(n).normal(size=(300, n, 3)):
        drawn = [student(i, c, some=a, params=b) for i, (a, b, c) in enumerate((draw @ root.T).tolist())]
        low, high = compare_with_params(drawn, "some").interval
        held += low <= truth <= high
    assert held / 300 >= 0.912


def test_a_difference_of_perfect_orders_is_not_certain():
    students = [student(i, i / 8, params=i, twice=2 * i, down=-i) for i in range(8)]
    same, opposed = (compare_with_params(students, name) for name in ("twice", "down"))
    assert (same.difference, same.n) == (0.0, 8)
    assert same.interval == (pytest.approx(-same.interval[1]), pytest.approx(1 - tau_interval(1.0, 8)[0]))
    assert opposed.difference == -2
    assert opposed.interval == (-2, pytest.approx(-2 + 2 * same.interval[1]))


@pytest.fixture
def costs(small_space, make_task):
    return CostTable(small_space("resnet"), make_task())


def test_students_are_feasible_distinct_and_spread_over_parameters(small_space, costs):
    space = small_space("resnet")
    limit = sorted(costs(a).params for a in space.all_architectures())[11]
    budget = Budget(max_params=limit)
    feasible = sorted(costs(a).params for a in space.all_architectures() if costs(a).params <= limit)
    chosen = spread_students(space, costs, budget, 4, random.Random(0))
    params = [costs(a).params for a in chosen]
    assert len({a.key for a in chosen}) == 4
    quarter = len(feasible) / 4
    for i, found in enumerate(params):  # one of each quarter
        assert feasible[round(i * quarter)] <= found <= feasible[round((i + 1) * quarter) - 1]
    assert spread_students(space, costs, budget, 4, random.Random(0)) == chosen


def test_a_space_with_fewer_students_gives_them_all(small_space, costs):
    space = small_space("resnet")
    chosen = spread_students(space, costs, Budget(), 1000, random.Random(0))
    assert len({a.key for a in chosen}) == len(chosen) == space.size


def test_a_large_space_is_sampled_within_budget(small_space, make_task):
    space = small_space("nb201")
    costs = CostTable(space, make_task())
    budget = Budget(max_params=1500)
    chosen = spread_students(space, costs, budget, 6, random.Random(0))
    assert len({a.key for a in chosen}) == 6
    assert all(not budget.violations(costs(a)) for a in chosen)


def test_too_few_feasible_students_are_refused_with_the_way_out(small_space, costs):
    space = small_space("resnet")
    least = sorted(costs(a).params for a in space.all_architectures())[1]
    with pytest.raises(UserError, match=r"2 students .* ranking needs 4: raise search\.budget"):
        spread_students(space, costs, Budget(max_params=least), 12, random.Random(0))
