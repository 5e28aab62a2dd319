"""Table of teacher hacking: in how many repeats it happened, and the alarm's errors, a line a case."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from edgestill.distill.hacking import alarm, hacking
from edgestill.pipeline.training.metrics import wilson


class Named(Protocol):
    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Named)


def print_table(cases: Sequence[C], repeats: int, curves: Callable[[C, int], tuple[list[float], list[float]]]) -> None:
    """Print the lines as they are found.

    Args:
        curves: takes a case and a seed, and gives the distances to the teacher (proxy) and to the truth (golden).
    """
    print("| case | hacked | median rise of golden | misses | false alarms |\n|---|---|---|---|---|")
    for case in cases:
        seen = []
        for seed in range(repeats):
            proxy, golden = curves(case, seed)
            seen.append((hacking(proxy, golden), alarm(proxy).rings))
        hacked = [rings for one, rings in seen if one.is_hacked]
        others = [rings for one, rings in seen if not one.is_hacked]
        rises = sorted(one.rise for one, _ in seen)
        print(
            f"| {case.name} | {_share(len(hacked), len(seen))} | {rises[len(rises) // 2]:.1%} | "
            f"{_share(len(hacked) - sum(hacked), len(hacked))} | {_share(sum(others), len(others))} |",
            flush=True,
        )


def _share(count: int, of: int) -> str:
    if not of:
        return "none to count"
    low, high = wilson(count / of, of)
    return f"{count} of {of} [{low:.0%}, {high:.0%}]"
