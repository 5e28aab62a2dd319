"""Teacher hacking: curves whose verdict is known."""

import numpy as np
import pytest

from edgestill.distill.hacking import alarm, hacking

STEPS = np.arange(1, 101)


def test_a_proxy_that_falls_while_golden_rises_is_hacked():
    proxy = 1 / STEPS
    golden = 1 / STEPS + np.where(STEPS > 30, (STEPS - 30) / 100, 0)
    found = hacking(proxy, golden)
    assert found.is_hacked
    assert found.golden_best < 40 < found.proxy_best == 100
    assert found.rise == pytest.approx(golden[-1] / golden.min() - 1)


def test_a_teacher_that_is_the_truth_is_never_hacked():
    rng = np.random.default_rng(0)
    same = 1 / STEPS * np.exp(0.1 * rng.normal(size=100))
    assert not hacking(same, same).is_hacked


def test_curves_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="of 2 and 3 steps"):
        hacking([1, 2], [1, 2, 3])


def test_the_alarm_is_silent_along_a_power_law_and_rings_where_the_curve_leaves_it():
    noise = np.exp(0.02 * np.random.default_rng(1).normal(size=100))
    law = STEPS**-0.7 * noise
    assert alarm(law).slope == pytest.approx(-0.7, abs=0.1)
    assert not alarm(law).rings
    assert alarm(np.where(STEPS > 30, law * 3, law)).rings


def test_the_alarm_needs_points():
    with pytest.raises(ValueError, match="at least 8"):
        alarm([1.0] * 7)
    with pytest.raises(ValueError, match="above 0"):
        alarm([1.0] * 7 + [0.0])
