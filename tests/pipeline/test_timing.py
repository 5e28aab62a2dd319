"""The stopwatch: which percentiles it dares to give, and whether it takes turns."""

import itertools
import time

import numpy as np
import pytest
import scipy.stats

from edgestill.pipeline.timing.timing import (
    Timing,
    TimingConfig,
    brief_medians_ms,
    expected_s,
    samples_needed,
    time_interleaved,
)


@pytest.mark.parametrize(
    ("percent", "confidence", "published"),
    [
        (50, 0.99, 11),
        (90, 0.99, 64),
        (95, 0.99, 130),
        (99, 0.99, 662),
        (99.9, 0.99, 6636),
        (90, 0.95, 46),
        (95, 0.95, 93),
        (99, 0.95, 473),
    ],
)
def test_samples_needed_are_mlperfs_and_the_least_by_the_binomial(percent, confidence, published):
    """662 is the minimum query count of MLPerf LoadGen's MultiStream scenario."""
    n = samples_needed(percent, confidence)
    assert n == published
    tail = 1 - percent / 100
    assert scipy.stats.binom.cdf(1, n, tail) <= 1 - confidence < scipy.stats.binom.cdf(1, n - 1, tail)


@pytest.mark.parametrize(("percent", "needed"), [(50, 11), (90, 64), (95, 130), (99, 662)])
def test_a_percentile_is_given_only_where_the_sample_supports_it(percent, needed):
    assert Timing(samples_ms=(1.0,) * (needed - 1)).percentile(percent) is None
    assert Timing(samples_ms=(1.0,) * needed).percentile(percent) == 1.0


@pytest.mark.parametrize("n", [130, 131, 662, 1000, 1001])
def test_percentiles_are_samples_at_the_rank_that_numpy_gives(n):
    samples = np.random.default_rng(n).exponential(size=n)
    timing = Timing(samples_ms=tuple(samples))
    for percent in (50, 90, 95, 99):
        expected = np.percentile(samples, percent, method="inverted_cdf") if samples_needed(percent) <= n else None
        assert timing.percentile(percent) == expected


def test_a_summary_holds_what_is_supported_and_how_many_samples_there_were():
    assert Timing(samples_ms=tuple(range(10))).summary() == {"n": 10}
    assert set(Timing(samples_ms=tuple(range(64))).summary()) == {"n", "p50_ms", "p90_ms"}
    assert Timing(samples_ms=tuple(float(i) for i in range(1, 1001))).summary() == {
        "n": 1000,
        "p50_ms": 500,
        "p90_ms": 900,
        "p95_ms": 950,
        "p99_ms": 990,
    }


def test_the_calls_take_turns():
    called = []
    calls = {name: (lambda name=name: called.append(name)) for name in ("teacher", "student")}
    config = TimingConfig(warmup_s=0, duration_s=1e-9, min_samples=30, max_samples=1000)
    found = time_interleaved(calls, config)
    assert [(name, len(list(group))) for name, group in itertools.groupby(called[2:])] == [
        ("teacher", 20),  # ten timed behind ten untimed
        ("student", 20),
    ] * 3
    assert called[:2] == ["teacher", "student"]  # warm-up
    assert {name: len(timing.samples_ms) for name, timing in found.items()} == {"teacher": 30, "student": 30}


def test_a_large_model_comes_back_in_20_ms_or_one_call_and_a_single_one_was_never_away():
    called = []
    clock = iter(range(0, 10**15, 7_000_000)).__next__  # 7 ms a reading
    config = TimingConfig(warmup_s=0, duration_s=1e-9, min_samples=10)
    time_interleaved({name: (lambda name=name: called.append(name)) for name in "ab"}, config, clock)
    assert called == [*"ab", *"a" * 13, *"b" * 13]
    called.clear()
    time_interleaved({"a": lambda: called.append("a")}, config, clock)
    assert len(called) == 1 + 10


def test_it_times_wall_clock_milliseconds():
    config = TimingConfig(warmup_s=0, duration_s=1e-9, min_samples=20)
    found = time_interleaved({"slow": lambda: time.sleep(0.004), "fast": lambda: None}, config)
    assert min(found["slow"].samples_ms) >= 4
    assert 4 <= found["slow"].percentile(50) < 40
    assert found["fast"].percentile(50) < 1


def test_brief_medians_are_there_for_calls_of_any_length():
    found = brief_medians_ms({"slow": lambda: time.sleep(0.004), "fast": lambda: None})
    assert found["slow"] >= 4 > 1 > found["fast"] > 0


def test_warm_up_lasts_as_long_as_it_was_told_and_is_not_counted():
    starts = []
    config = TimingConfig(warmup_s=0.1, duration_s=1e-9, min_samples=10)
    begin = time.perf_counter()
    found = time_interleaved({"call": lambda: starts.append(time.perf_counter() - begin)}, config)
    assert len(found["call"].samples_ms) == 10
    assert starts[-10] >= 0.1 > starts[0]


def test_sampling_goes_on_for_the_duration_but_never_beyond_the_most():
    config = TimingConfig(warmup_s=0, duration_s=0.05, min_samples=10, max_samples=10_000_000)
    begin = time.perf_counter()
    found = time_interleaved({"a": lambda: time.sleep(1e-4), "b": lambda: None}, config)
    assert time.perf_counter() - begin >= 0.1  # the duration counts a call
    assert len(found["a"].samples_ms) == len(found["b"].samples_ms) > 10
    capped = TimingConfig(warmup_s=0, duration_s=60, min_samples=1000, max_samples=50)
    assert len(time_interleaved({"a": lambda: None}, capped)["a"].samples_ms) == 50


@pytest.mark.parametrize(
    "config",
    [
        TimingConfig(warmup_s=0.5, duration_s=0.1, min_samples=200),  # the samples decide
        TimingConfig(warmup_s=0.5, duration_s=3.0, min_samples=10),  # the duration decides
        TimingConfig(warmup_s=0.5, duration_s=60.0, min_samples=10, max_samples=300),  # the most decides
    ],
)
@pytest.mark.parametrize("calls_s", [(0.004,), (0.004, 0.001), (0.03, 0.004, 0.0005)])
def test_the_expected_time_is_that_of_the_turns(config, calls_s):
    now = 0

    def call(seconds):
        nonlocal now
        now += int(seconds * 1e9)

    time_interleaved({str(s): (lambda s=s: call(s)) for s in calls_s}, config, lambda: now)
    assert expected_s(calls_s, config) == pytest.approx(now / 1e9, rel=0.1)
