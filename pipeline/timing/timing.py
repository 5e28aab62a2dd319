"""The one stopwatch: eager torch, ONNX Runtime and TensorRT are all timed by `time_interleaved`.

Its loop is in `stopwatch.py`, its statistics in `latency_statistics.py`. They are separate files
because a bundle's profile_device.py holds their text, for devices that have neither edgestill nor pydantic.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.timing.latency_statistics import percentile, samples_needed, supported_percentiles
from edgestill.pipeline.timing.stopwatch import RELOAD, RELOAD_NS, TURN, take_turns

__all__ = [
    "MedianTimingConfig",
    "Timing",
    "TimingConfig",
    "brief_medians_ms",
    "expected_s",
    "samples_needed",
    "time_interleaved",
]


class TimingConfig(Frozen):
    warmup_s: float = Field(
        0.2, ge=0, le=60, description="seconds of untimed calls of each model before its first sample"
    )
    duration_s: float = Field(2.0, gt=0, le=3600, description="approximate seconds of calls of each model")
    min_samples: int = Field(130, ge=1, description="minimum number of timed calls of each model; 130 supports a p95")
    max_samples: int = Field(20_000, ge=1, description="approximate maximum number of timed calls of each model")


def _supports_a_median(timing: TimingConfig) -> TimingConfig:
    needed = samples_needed(50)
    if min(timing.min_samples, timing.max_samples) < needed:
        raise ValueError(f"min_samples and max_samples must be {needed} or more, or there is no median to report")
    return timing


_BRIEF = TimingConfig(warmup_s=0.0, duration_s=0.001, min_samples=10)
MedianTimingConfig = Annotated[TimingConfig, AfterValidator(_supports_a_median)]


class Timing(Frozen):
    """Wall times of single calls, in the order they were made."""

    samples_ms: tuple[float, ...]

    def percentile(self, percent: float) -> float | None:
        """The sample at rank ceil(n p), or None where n is too small to support it."""
        return percentile(self.samples_ms, percent)

    def summary(self) -> dict[str, float | int]:
        """The supported percentiles by name (`p50_ms`, …), and n."""
        return {"n": len(self.samples_ms), **supported_percentiles(self.samples_ms)}


def expected_s(calls_s: Sequence[float], config: TimingConfig) -> float:
    """Estimate the seconds that `time_interleaved` takes for models of known seconds a call."""
    untimed = sum(min(RELOAD * call, RELOAD_NS / 1e9 + call) for call in calls_s) if len(calls_s) > 1 else 0.0
    a_sample = sum(calls_s) + untimed / TURN
    timed = min(config.max_samples * a_sample, config.duration_s * len(calls_s))
    return config.warmup_s * len(calls_s) + max(config.min_samples * a_sample, timed)


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    config: TimingConfig,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Timing]:
    """Time all calls in turns, so that a slow moment of the machine falls on all alike.

    `take_turns` defines warm-up and turns; durations and numbers of samples come from the configuration.
    """
    found = take_turns(calls, config.warmup_s, config.duration_s, config.min_samples, config.max_samples, clock_ns)
    return {name: Timing(samples_ms=tuple(times)) for name, times in found.items()}


def brief_medians_ms(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Time some ten of each call in turns, to choose between them, and return their medians in ms."""
    found = time_interleaved(calls, _BRIEF)
    return {name: statistics.median(timing.samples_ms) for name, timing in found.items()}
