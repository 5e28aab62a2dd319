"""What stands in brackets beside a score's regret."""

import importlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def proxies():
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("proxies")
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")) or name == "lib":
            del sys.modules[name]


def test_the_range_of_regret_is_that_among_halves_in_which_no_architecture_stands_twice(proxies):
    """Of six architectures there are twenty halves; the worst one of each is picked."""
    accuracy = np.array([90.0, 91.0, 93.0, 96.0, 97.0, 99.0])
    halves = proxies.random_halves(6, np.random.default_rng(0))
    assert all(len(set(half)) == 3 for half in halves.tolist())
    regrets = [accuracy[list(half)].max() - accuracy[list(half)].min() for half in itertools.combinations(range(6), 3)]
    low, high = np.quantile(regrets, (0.025, 0.975))

    def regret(scores, found, params):
        return proxies.mean_regret(scores, found, params, np.array([1.0]))

    said = proxies.with_range(regret, -accuracy, accuracy, np.ones(6), halves)
    assert said == f"9.00 [{low:.2f}, {high:.2f}]"
