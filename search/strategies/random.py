"""Uniformly drawn members within budget, none twice: what any cleverer strategy has to beat."""

from typing import Literal

from pipeline.frozen import Frozen
from search.space import Architecture
from search.strategies.base import Progress, S, Search
from search.strategies.feasible import unreachable

_SHUFFLED = 20_000  # a space of up to so many members is shuffled, a larger one drawn from
_AT_ONCE = 64  # bounds what is drawn before the first is scored


class RandomConfig(Frozen):
    """Uniform, without repetition."""

    name: Literal["random"] = "random"


def draw_randomly(search: Search[S], config: RandomConfig) -> list[S]:
    """As many feasible members as may be scored.

    In a space too large to shuffle, members within budget that 200 random draws do not meet are reached by descent,
    which is not uniform.
    """
    progress = Progress(search)
    if search.space.size > _SHUFFLED:
        while batch := progress.take(min(_AT_ONCE, progress.left)):
            progress.score(batch)
    else:
        progress.score(_shuffled(search))
    return [result for _, result in progress.scored]


def _shuffled(search: Search[S]) -> list[Architecture]:
    members = list(search.space.all_architectures())
    search.rng.shuffle(members)
    feasible: list[Architecture] = []
    for architecture in members:
        if len(feasible) == search.evaluations:
            break
        if search.is_feasible(architecture):
            feasible.append(architecture)
    if not feasible:
        raise unreachable(search, min(members, key=search.excess))
    return feasible
