"""Random search: uniformly drawn members within budget, none twice; the baseline for any other strategy."""

from typing import Literal

from edgestill.pipeline.frozen import Frozen
from edgestill.search.space import Architecture
from edgestill.search.strategies.base import Progress, S, Search
from edgestill.search.strategies.feasible import unreachable

_SHUFFLED = 20_000  # a space of up to so many members is shuffled, a larger one drawn from
_AT_ONCE = 64  # members drawn before the first of them is scored


class RandomConfig(Frozen):
    """Uniform draws without repetition."""

    name: Literal["random"] = "random"


def draw_randomly(search: Search[S], config: RandomConfig) -> list[S]:
    """Score as many random feasible members as `search.evaluations` allows.

    In a space too large to shuffle, a member is reached by descent if 200 random draws find none. This is not uniform.
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
    first = {architecture.key for architecture in search.first}
    members.sort(key=lambda member: member.key not in first)
    feasible: list[Architecture] = []
    for architecture in members:
        if len(feasible) == search.evaluations:
            break
        if search.is_feasible(architecture):
            feasible.append(architecture)
    if not feasible:
        raise unreachable(search, min(members, key=search.excess))
    return feasible
