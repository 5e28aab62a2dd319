"""The tournament's leads by simulation: how often equal students are told apart, and a better one is found."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "leads.py"
TRIALS = 400


@pytest.fixture(scope="module")
def leads():
    spec = importlib.util.spec_from_file_location("benchmark_leads", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("students", [2, 4, 8])
def test_of_equal_students_at_most_one_lead_in_twenty_is_called_more_than_noise(leads, students):
    found = leads.more_than_noise(students, 400, 0.9, TRIALS, seed=0)
    chance = 3 * math.sqrt(0.05 * 0.95 / TRIALS)  # of the simulation
    assert found.next_one <= 0.05 + chance
    assert found.pick <= 0.05 + chance


def test_a_student_five_points_better_is_found_in_nine_tournaments_of_ten(leads):
    assert leads.more_than_noise(4, 2000, 0.95, 100, seed=0).next_one > 0.9
