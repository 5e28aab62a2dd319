"""Scores of one candidate by any scorers, each the mean over draws of the weights."""

import copy
import math
import statistics
import time
from collections.abc import Sequence
from typing import Self

from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.task import Task
from edgestill.search.scorers import SCORERS
from edgestill.search.scoring.composed import Composed
from edgestill.search.scoring.conditions import ALL_HERE, Conditions, Means
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.draws import Draws
from edgestill.search.scoring.outcome import Scores
from edgestill.search.space import Architecture, SearchSpace


class Evaluator:
    """Scorer of candidates of one space on one batch, against one forward pass of the teacher.

    The result for an architecture depends on the seed and the architecture, not on other candidates or their order.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        scorers: Sequence[str],
        conditions: Conditions,
        means: Means = ALL_HERE,
    ) -> None:
        self._guard = conditions.guard
        self.cost = means.costs or CostTable(space, task)
        plain = [name for name in scorers if not SCORERS[name].parts]
        self._plain = Draws(space, task, plain, conditions, self.cost)
        kinds = [SCORERS[name] for name in scorers if SCORERS[name].parts]
        self.composed = [Composed(kind, space, task, conditions, self.cost, means) for kind in kinds]

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """Parts left out for the whole space, by scorer with parts."""
        return {whole.scorer.name: whole.scorer.missing for whole in self.composed}

    def portable(self) -> Self:
        """Return a copy to send to another process, with empty cost tables to count there."""
        portable = copy.copy(self)
        portable._plain = self._plain.portable()
        portable.composed = [whole.portable() for whole in self.composed]
        portable.cost = portable._plain.cost
        return portable

    def __call__(self, architecture: Architecture) -> Scores:
        """Return every scorer's score, averaged over the draws.

        Raises:
            CandidateError: the network failed, is dead (with `guard`), or no scorer has a finite score.
        """
        start = time.perf_counter()
        drawn = self.drawn(architecture)
        found = {name: taken for name, taken in drawn.items() if all(math.isfinite(value) for value in taken)}
        if not found:
            raise CandidateError(f"no finite score ({', '.join(f'{n} {v}' for n, v in drawn.items())})", "not_finite")
        return Scores(
            values={name: statistics.fmean(taken) for name, taken in found.items()},
            std={name: statistics.pstdev(taken) for name, taken in found.items()},
            seconds=time.perf_counter() - start,
        )

    def drawn(self, architecture: Architecture) -> dict[str, list[float]]:
        """Return every scorer's score of each draw, NaN or infinite if there is none.

        Raises:
            CandidateError: the network failed, or is dead (with `guard`, or if every scorer has parts).
        """
        drawn = self._plain.drawn(architecture)
        for whole in self.composed:
            try:
                drawn[whole.scorer.name] = whole(architecture)
            except CandidateError:
                if self._guard or not self._plain.scorers:
                    raise
                drawn[whole.scorer.name] = [math.nan] * self._plain.draws
        return drawn
