"""The statistics of benchmarks/lib/interaction.py, on tables whose parts are known."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

FILE = Path(__file__).parents[2] / "benchmarks" / "lib" / "interaction.py"


@pytest.fixture(scope="module")
def stats():
    spec = importlib.util.spec_from_file_location("benchmark_interaction", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_what_students_and_teachers_explain_alone_leaves_no_interaction(stats, rng):
    table = rng.normal(size=(24, 1)) + rng.normal(size=(1, 3))
    assert np.allclose(stats.interaction(table, standardise=False), 0)
    assert stats.interaction_share(table) == pytest.approx(0)


def test_a_teacher_that_only_spreads_its_students_more_has_no_interaction_once_spread_is_taken_off(stats, rng):
    table = rng.normal(size=(24, 1)) * np.array([1.0, 2.0, 5.0]) + np.array([0.0, 1.0, 7.0])
    assert np.allclose(stats.interaction(table, standardise=True), 0)
    assert not np.allclose(stats.interaction(table, standardise=False), 0)


def test_a_planted_interaction_is_given_back(stats, rng):
    planted = rng.normal(size=(24, 3))
    planted -= planted.mean(0)
    planted -= planted.mean(1, keepdims=True)
    table = planted + 5 * rng.normal(size=(24, 1)) + rng.normal(size=(1, 3))
    assert np.allclose(stats.interaction(table, standardise=False), planted)


def test_spearman_is_scipys_ties_included(stats, rng):
    one, other = rng.integers(5, size=(2, 24, 3))
    assert stats.spearman(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert np.isnan(stats.spearman(one, np.zeros((24, 3))))


def test_a_true_predictor_has_a_small_p_and_chance_has_a_uniform_one(stats, rng):
    target = stats.interaction(rng.normal(size=(24, 3)), standardise=True)
    noise = [stats.interaction(rng.normal(size=(24, 3)), standardise=True) for _ in range(200)]
    true = stats.interaction(target + 0.3 * rng.normal(size=(24, 3)), standardise=True)
    alone, among = stats.permutation_p([true, *noise], target, seed=0)
    assert alone[0] < 0.01
    assert among[0] < 0.01
    assert np.mean(np.array(alone[1:]) < 0.05) == pytest.approx(0.05, abs=0.04)  # 200 draws of a 5 % event
    assert np.mean(np.array(among[1:]) < 0.05) <= 0.01


def test_the_ceiling_is_the_correlation_of_the_truth_with_the_mean_of_repeats(stats, rng):
    truth = rng.normal(size=200_000)
    repeats = truth + 1.5 * rng.normal(size=(2, truth.size))
    reliability = np.corrcoef(repeats)[0, 1]
    expected = np.corrcoef(truth, repeats.mean(0))[0, 1]
    assert stats.ceiling(reliability, 2) == pytest.approx(expected, abs=0.01)
    assert stats.ceiling(-0.1, 2) == 0
