"""Rank correlations with their intervals, against SciPy and closed forms; and which students are asked."""

import itertools
import random

import numpy as np
import pytest
import scipy.stats

from pipeline.cost import Cost
from pipeline.errors import UserError
from search.config import Budget
from search.evaluate import CostTable
from search.ranking import RankedStudent, compare_with_params, kendall_tau, rank_scorers, spread_students


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
    flat = rank_scorers(students, ["flat", "params"], 0)[-1]
    assert (flat.scorer, flat.tau, flat.interval, flat.n) == ("flat", None, None, 6)
    assert compare_with_params(students, "flat", 0) is None


def test_rows_are_sorted_by_tau_and_count_the_students_without_a_score():
    students = [student(i, i / 10, params=i, down=-i, **({"half": i} if i % 2 else {})) for i in range(10)]
    students.append(student(10, None, params=0, down=0))  # whose training failed counts for nobody
    rows = rank_scorers(students, ["none", "down", "half", "params"], 0)
    assert [(row.scorer, row.tau, row.n, row.unscored) for row in rows] == [
        ("half", 1.0, 5, 5),
        ("params", 1.0, 10, 0),
        ("down", -1.0, 10, 0),
        ("none", None, 0, 10),
    ]


def test_the_interval_is_the_percentile_bootstraps():
    """For four students every one of the 256 resamples can be listed; the drawn 2,000 come close to them."""
    accuracies, scores = [0.1, 0.2, 0.3, 0.4], [1.0, 3.0, 2.0, 4.0]
    students = [student(i, a, some=s) for i, (a, s) in enumerate(zip(accuracies, scores, strict=True))]
    (row,) = rank_scorers(students, ["some"], 0)
    all_taus = []
    for draw in itertools.product(range(4), repeat=4):
        one, other = np.array(scores)[list(draw)], np.array(accuracies)[list(draw)]
        if len(set(draw)) > 1:
            all_taus.append(scipy.stats.kendalltau(one, other).statistic)
    expected = np.quantile(all_taus, (0.025, 0.975))
    assert row.tau == pytest.approx(2 / 3)
    assert row.interval == pytest.approx(tuple(expected), abs=0.02)
    assert rank_scorers(students, ["some"], 0) == (row,)


def test_a_scorer_is_compared_with_params_on_the_same_resamples():
    """Equal ranks differ in no resample, though each by itself is uncertain."""
    rng = random.Random(0)
    students = [student(i, rng.random(), params=i, twice=2 * i, better=0.0) for i in range(12)]
    found = compare_with_params(students, "twice", 0)
    assert (found.difference, found.interval, found.n) == (0.0, (0.0, 0.0), 12)
    better = [s.model_copy(update={"scores": s.scores | {"better": s.accuracy}}) for s in students]
    found = compare_with_params(better, "better", 0)
    tau = scipy.stats.kendalltau([s.cost.params for s in better], [s.accuracy for s in better]).statistic
    assert found.difference == pytest.approx(1 - tau)
    assert found.interval[0] > 0


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
