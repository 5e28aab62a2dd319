"""How much of the true front of score and costs the strategies find under random budgets, at a fifth of the effort.

    python benchmarks/front.py [--budgets 1000] [--score nwot] [--share 0.2]

The space is S0, the paper's ResNets, with widths: 4 choices of blocks and 3 of width for each of 3 stages, 1,728
members, at widths that a minute can score: every member is scored once, on 8 x 8 digits. Then each strategy searches
that table under the same budgets, each a random limit on parameters and one on FLOPs, with at most the given share of
the budget's feasible members as evaluations. A front is worth its hypervolume over (score up, parameters and FLOPs
down), each scaled to [0, 1] over the feasible members, with their worst values as reference point; the exhaustive front
is worth 100 %. Budgets that leave fewer than --at-least members are drawn again.
"""

import argparse
import math
import random
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.splits import draw_batch
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.teachers import TeacherConfig, build_teacher
from edgestill.search.budget import Budget
from edgestill.search.pareto import objectives, pareto_front
from edgestill.search.scorers import SCORERS, builds_networks
from edgestill.search.scoring.conditions import Conditions
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.space import Architecture
from edgestill.search.spaces import ResNetConfig, ResNetSpace
from edgestill.search.strategies import STRATEGIES, Search

SPACE = ResNetSpace(
    ResNetConfig(blocks=((1, 3, 5, 7),) * 3, widths=((4, 6, 8), (8, 12, 16), (16, 24, 32))),
)


class Member(NamedTuple):
    key: str
    value: float
    cost: Cost


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    members = scored(arguments.score)
    print(f"{describe_machine()['cpu']}, 1 thread, torch {torch.__version__}")
    print(f"{len(members):,} of {SPACE.size:,} ResNets have a score ({arguments.score}); seed {arguments.seed}")
    budgets = draw_budgets(members, arguments.budgets, arguments.at_least, random.Random(arguments.seed))
    print(f"{len(budgets):,} random budgets; {arguments.share:.0%} of the feasible members as evaluations")
    print("strategy     infeasible winners  hypervolume: mean  median  5th percentile  lowest  best score found")
    for name in ("nsga2", "evolution", "random"):
        ratios, infeasible, reached = [], 0, 0
        for number, budget in enumerate(budgets):
            feasible = [m for m in members.values() if not budget.violations(m.cost)]
            found = search(name, members, budget, math.floor(arguments.share * len(feasible)), number)
            winner = max(found, key=lambda member: member.value)
            infeasible += bool(budget.violations(winner.cost))
            reached += winner.value == max(member.value for member in feasible)
            ratios.append(hypervolume_ratio(found, feasible))
        ratios.sort()
        print(
            f"{name:<12} {infeasible:>18}  {statistics.fmean(ratios):>17.2%}  {statistics.median(ratios):.2%}"
            f"  {ratios[len(ratios) // 20]:>14.2%}  {ratios[0]:.2%}  {reached / len(budgets):>16.1%}"
        )


def search(name: str, members: dict[str, Member], budget: Budget, evaluations: int, number: int) -> list[Member]:
    """What a strategy with its default settings scores within so many evaluations."""
    config, run = STRATEGIES[name]

    def cost(architecture: Architecture) -> Cost:
        if architecture.key not in members:
            raise CandidateError("has no score")
        return members[architecture.key].cost

    given = Search[Member](
        SPACE,
        cost,
        budget,
        score=lambda these: [members[architecture.key] for architecture in these],
        rank=lambda found: [member.value for member in found],
        evaluations=evaluations,
        rng=random.Random(derive_seed(number, name)),
    )
    return run(given, config())


def hypervolume_ratio(found: Sequence[Member], feasible: Sequence[Member]) -> float:
    """The found front's hypervolume over that of all feasible members."""
    points = objectives(feasible, [member.value for member in feasible])
    best, worst = points.min(0), points.max(0)
    scale = [b - a if b > a else 1.0 for a, b in zip(best, worst, strict=True)]

    def volume(some: Sequence[Member]) -> float:
        scaled = (objectives(some, [member.value for member in some]) - best) / scale
        return hypervolume([tuple(scaled[i]) for i in pareto_front(scaled)])

    return volume(found) / volume(feasible)


def hypervolume(points: Sequence[tuple[float, ...]]) -> float:
    """Of what the points dominate within the unit cube, all minimised: slices along the last axis, each an area."""
    ordered = sorted(points, key=lambda point: point[2])
    ends = [point[2] for point in ordered[1:]] + [1.0]
    volume, stairs = 0.0, []
    for point, end in zip(ordered, ends, strict=True):
        stairs.append(point[:2])
        if end > point[2]:
            volume += _area(stairs) * (end - point[2])
    return volume


def _area(points: Sequence[tuple[float, ...]]) -> float:
    area, lowest = 0.0, 1.0
    for x, y in sorted(points):
        if y < lowest:
            area += (1.0 - x) * (lowest - y)
            lowest = y
    return area


def draw_budgets(members: dict[str, Member], count: int, at_least: int, rng: random.Random) -> list[Budget]:
    """Limits that are the costs of two members drawn uniformly: parameters of one, FLOPs of the other."""
    pool = [member.cost for member in members.values()]
    budgets: list[Budget] = []
    while len(budgets) < count:
        budget = Budget(max_params=rng.choice(pool).params, max_flops=rng.choice(pool).flops)
        if sum(not budget.violations(cost) for cost in pool) >= at_least:
            budgets.append(budget)
    return budgets


def scored(scorer: str) -> dict[str, Member]:
    """Every member's score by one of our scorers, one draw of the weights, on 32 digits."""
    start = time.perf_counter()
    splits = load_splits(DigitsConfig(), 0)
    teacher = build_teacher(TeacherConfig(architecture="resnet56"), splits.task)
    batch = draw_batch(splits.train, 32, 0)
    evaluator = Evaluator(
        SPACE, splits.task, [scorer], Conditions(batch, teacher, 0, comparable=True, guard=builds_networks(scorer))
    )
    members = {}
    for architecture in SPACE.all_architectures():
        try:
            value = evaluator(architecture).values[scorer]
        except CandidateError:
            continue
        members[architecture.key] = Member(architecture.key, value, evaluator.cost(architecture))
    print(f"scored in {time.perf_counter() - start:.0f} s")
    return members


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--score", choices=list(SCORERS), default="nwot")
    parser.add_argument("--budgets", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--at-least", type=int, default=50, help="members within each budget")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
