"""The loop of the one stopwatch, in the standard library alone; the package calls it through `timing.py`."""

import time
from collections.abc import Callable, Mapping

TURN = 10  # timed calls of one model before the next model's turn
RELOAD, RELOAD_NS = 10, 20_000_000  # untimed calls after a change of models; fewer once 20 ms have passed


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    warmup_s: float,
    duration_s: float,
    min_samples: int,
    max_samples: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    between: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Time calls of several models in turns, and return each model's wall times in ms, in order.

    Each model is first called untimed until `warmup_s` have passed. Then the models take turns of TURN timed calls,
    until each has `min_samples` and `duration_s` times the number of models have passed, or each has `max_samples`.
    With several models each turn begins with untimed calls: the other model has filled the caches, and one call alone
    does not bring this one back. A model that is not back after 20 ms is too large for a cache, and slow every time.
    `between` is called after each round of turns.
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
