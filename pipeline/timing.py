"""The one stopwatch: eager torch, ONNX Runtime and TensorRT are all timed by `time_interleaved`.

A percentile is given only where the sample supports it, by MLPerf LoadGen's early-stopping rule at 99 %
confidence (loadgen/early_stopping.cc): p90 needs 64 samples, p95 130, p99 662.
"""

import math
import time
from collections.abc import Callable, Mapping

from pydantic import Field

from pipeline.frozen import Frozen

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
_TURN = 10


class TimingConfig(Frozen):
    warmup_s: float = Field(0.2, ge=0, le=60, description="seconds of untimed calls before the first sample")
    duration_s: float = Field(2.0, gt=0, le=3600, description="seconds of timed calls of each model, about")
    min_samples: int = Field(130, ge=1, description="timed calls at least; 130 supports a p95")
    max_samples: int = Field(20_000, ge=1, description="timed calls at most, about")


class Timing(Frozen):
    """Wall times of single calls, in the order they were made."""

    samples_ms: tuple[float, ...]

    def percentile(self, percent: float) -> float | None:
        """The sample at rank ceil(n p), or None where n is too small to support it."""
        if len(self.samples_ms) < samples_needed(percent):
            return None
        ordered = sorted(self.samples_ms)
        return ordered[math.ceil(len(ordered) * percent / 100) - 1]

    def summary(self) -> dict[str, float | int]:
        """The supported percentiles by name (`p50_ms`, …), and n."""
        found = {f"p{percent:g}_ms": self.percentile(percent) for percent in PERCENTILES}
        return {"n": len(self.samples_ms), **{k: v for k, v in found.items() if v is not None}}


def samples_needed(percent: float, confidence: float = 0.99) -> int:
    """The smallest n with P[Binomial(n, 1 - p) <= 1] <= 1 - confidence."""
    tail = 1 - percent / 100
    n = 2
    while (1 - tail) ** n + n * tail * (1 - tail) ** (n - 1) > 1 - confidence:
        n += 1
    return n


def time_interleaved(calls: Mapping[str, Callable[[], object]], config: TimingConfig) -> dict[str, Timing]:
    """Time each call, taking turns, so that a slow moment of the machine falls on all alike.

    Each call is made untimed until `warmup_s` have passed. Then turns of `_TURN` timed calls each, behind one
    untimed call that brings the model back into the caches, until every call has `min_samples` and
    `duration_s` a call have passed, or `max_samples` are there.
    """
    for call in calls.values():
        until = time.perf_counter() + config.warmup_s
        call()
        while time.perf_counter() < until:
            call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    until = time.perf_counter() + config.duration_s * len(calls)
    taken = 0
    while taken < config.max_samples and (taken < config.min_samples or time.perf_counter() < until):
        for name, call in calls.items():
            call()
            for _ in range(_TURN):
                start = time.perf_counter_ns()
                call()
                samples[name].append((time.perf_counter_ns() - start) / 1e6)
        taken += _TURN
    return {name: Timing(samples_ms=tuple(times)) for name, times in samples.items()}
