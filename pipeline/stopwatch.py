"""The loop of the one stopwatch, in the standard library alone; `pipeline/timing.py` is its face in the package."""

import time
from collections.abc import Callable, Mapping

TURN = 10  # timed calls of one model before it is the next one's turn
RELOAD, RELOAD_NS = 10, 20_000_000  # untimed calls at a change of models; fewer where they take 20 ms


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    warmup_s: float,
    duration_s: float,
    min_samples: int,
    max_samples: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    between: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Wall times in ms of each call, in the order they were made.

    Each call is made untimed until `warmup_s` have passed. Then turns of TURN timed calls each until every call has
    `min_samples` and `duration_s` a call have passed, or `max_samples` are there. Where several models take turns, each
    turn begins untimed: the other model has taken the caches, and one call alone does not bring this one back. What
    20 ms cannot bring back is too large for a cache, and slow every time. `between` is called when all had their turn.
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
            if len(calls) > 1:
                _reload(call, clock_ns)
            for _ in range(TURN):
                start = clock_ns()
                call()
                samples[name].append((clock_ns() - start) / 1e6)
        between()
        taken += TURN
    return samples


def _reload(call: Callable[[], object], clock_ns: Callable[[], int]) -> None:
    until = clock_ns() + RELOAD_NS
    for _ in range(RELOAD):
        call()
        if clock_ns() >= until:
            return
