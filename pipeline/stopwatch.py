"""The loop of the one stopwatch, in the standard library alone; `pipeline/timing.py` is its face in the package."""

import time
from collections.abc import Callable, Mapping

TURN = 10  # timed calls of one model before it is the next one's turn


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    warmup_s: float,
    duration_s: float,
    min_samples: int,
    max_samples: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, list[float]]:
    """Wall times in ms of each call, in the order they were made.

    Each call is made untimed until `warmup_s` have passed. Then turns of TURN timed calls each, behind one untimed call
    that brings the model back into the caches, until every call has `min_samples` and `duration_s` a call have passed,
    or `max_samples` are there.
    """
    for call in calls.values():
        until = clock_ns() + warmup_s * 1e9
        call()
        while clock_ns() < until:
            call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    until = clock_ns() + duration_s * len(calls) * 1e9
    taken = 0
    while taken < max_samples and (taken < min_samples or clock_ns() < until):
        for name, call in calls.items():
            call()
            for _ in range(TURN):
                start = clock_ns()
                call()
                samples[name].append((clock_ns() - start) / 1e6)
        taken += TURN
    return samples
