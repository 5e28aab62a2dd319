"""How often a tournament calls a lead more than noise: among equally good students, and where one is better.

    python benchmarks/leads.py [--trials 1000] [--seed 0]

Answers are drawn, nothing is trained. An example's difficulty is common to all students, the rest is a student's own,
and a little of it changes from rung to rung. Where the best is as good as the others the shares are the level,
elsewhere the power. The search's pick is the student that the score liked best; its shares, too, are of all
tournaments, those among them that it won.
"""

import argparse
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.training.metrics import packed
from edgestill.search.budget import Budget
from edgestill.search.config import TournamentConfig
from edgestill.search.result import Candidate, SearchResult
from edgestill.search.tournament import Trained, play

_COMMON, _OWN, _RUNG = 1.0, 0.5, 0.3  # standard deviations; right answers then correlate by 0.45


class Share(NamedTuple):
    next_one: float  # of tournaments in which the lead over it was called more than noise
    pick: float  # likewise over the search's pick


def main() -> None:
    arguments = _arguments()
    print(f"{arguments.trials} tournaments each, the others at 90 %, seed {arguments.seed}\n")
    print("| examples | the best at | students | over the next one | over the search's pick |")
    print("|---|---|---|---|---|")
    for n in (400, 2000):
        for best in (0.9, 0.92, 0.95):
            for k in (2, 4, 8):
                found = more_than_noise(k, n, best, arguments.trials, arguments.seed)
                print(f"| {n:,} | {best:.0%} | {k} | {found.next_one:.1%} | {found.pick:.1%} |")


def more_than_noise(students: int, examples: int, best: float, trials: int, seed: int, others: float = 0.9) -> Share:
    """The shares of tournaments; the best student has a random place by score."""
    rng, next_one, pick = np.random.default_rng(seed), 0, 0
    for _ in range(trials):
        found = _search(students)
        names = [candidate.architecture for candidate in found.candidates]
        accuracy = dict.fromkeys(names, others) | {str(rng.choice(names)): best}
        for number, lead in enumerate(
            play(found, students, TournamentConfig(), _Answers(accuracy, examples, rng)).leads
        ):
            next_one += number == 0 and not lead.is_noise
            pick += lead.over == found.winner.architecture and not lead.is_noise
    return Share(next_one / trials, pick / trials)


class _Answers:
    """Stands for a training: draws which examples a student of a known accuracy gets right."""

    def __init__(self, accuracy: dict[str, float], examples: int, rng: np.random.Generator) -> None:
        spread = math.hypot(_COMMON, _OWN, _RUNG)
        self._above = {name: spread * NormalDist().inv_cdf(value) for name, value in accuracy.items()}
        self._examples, self._rng = examples, rng
        self._common = rng.normal(0, _COMMON, examples)
        self._own = {name: rng.normal(0, _OWN, examples) for name in accuracy}

    def __call__(self, candidate: Candidate, rung: int, epochs: int) -> Trained:
        architecture = candidate.architecture
        noise = self._common + self._own[architecture] + self._rng.normal(0, _RUNG, self._examples)
        right = noise + self._above[architecture] > 0
        return Trained(float(right.mean()), 0.0, packed(right))


def _search(students: int) -> SearchResult:
    candidates = tuple(
        Candidate(architecture=f"s{i}", cost=Cost(params=1, flops=1), scores={"nwot": -float(i)}, std={})
        for i in range(students)
    )
    return SearchResult(
        space="resnet",
        space_size=students,
        scorer="nwot",
        combine="sum",
        budget=Budget(),
        winner=candidates[0],
        strategy="random",
        front=candidates[:1],
        picks={},
        evaluated=students,
        exhaustive=True,
        failures=(),
        candidates=candidates,
        notes=(),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
