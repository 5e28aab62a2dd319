"""Scorer with parts: other scorers run first, and it sees only their scores."""

import copy
import dataclasses
import random
from collections.abc import Sequence
from typing import Self

from edgestill.pipeline.errors import FailedError
from edgestill.pipeline.frozen import Frozen, derive_seed, digest
from edgestill.pipeline.task import Task
from edgestill.search.scorers import SCORERS, Scorer, ScoringContext
from edgestill.search.scoring.conditions import Conditions, Means
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.draws import Draws
from edgestill.search.space import Architecture, SearchSpace

SAMPLE = 64  # random architectures, without labels, that a scorer is prepared on


class Composed:
    """A scorer with the draws of its parts, which have no parts of their own.

    The parts run on the scorer's own number of the batch's images. Those that need a teacher are left out if there is
    none.
    """

    def __init__(
        self,
        kind: type[Scorer],
        space: SearchSpace,
        task: Task,
        conditions: Conditions,
        costs: CostTable,
        means: Means,
    ) -> None:
        batch, teacher = conditions.batch, conditions.teacher
        shown = batch if kind.images is None else batch.first(kind.images)
        names = [name for name in kind.parts if teacher is not None or not SCORERS[name].needs_teacher]
        own = dataclasses.replace(conditions, batch=shown, draws=1, comparable=True, guard=True, configs={})
        once = Draws(space, task, names, own, costs)
        context = ScoringContext(
            batch=shown,
            teacher=None,
            teacher_dims=space.embedding_dims() if conditions.comparable else frozenset(),
            seed=conditions.seed,
            prepared=_prepared(kind, space, once, conditions.seed, means),
        )
        self.scorer = kind(context, conditions.configs.get(kind.name))
        self.parts = once.times(conditions.draws)

    def portable(self) -> Self:
        """Return a copy to send to another process."""
        portable = copy.copy(self)
        portable.parts = self.parts.portable()
        return portable

    def __call__(self, architecture: Architecture) -> list[float]:
        """Return the score of each draw, NaN or infinite if there is none.

        Raises:
            CandidateError: the network failed, or is dead.
        """
        taken = self.parts.drawn(architecture)
        rows = [dict(zip(taken, values, strict=True)) for values in zip(*taken.values(), strict=True)]
        return [self.scorer(self.parts.without_network(architecture, row)) for row in rows]


def _prepared(scorer: type[Scorer], space: SearchSpace, parts: Draws, seed: int, means: Means) -> Frozen | None:
    """Prepare a scorer on 64 random members of the space, whatever the budget; on all of a smaller one.

    What it learns is kept under a name of all that it depends on; if kept, no member is scored.

    Raises:
        FailedError: none of the members could be scored.
    """
    if scorer.prepares is None:
        return None
    architectures = space.sample_different(SAMPLE, random.Random(derive_seed(seed, "calibration")))
    members = [(architecture.key, parts.cost(architecture)) for architecture in architectures]  # costs reveal widths
    key = digest(scorer.kept_as or scorer.name, parts.content, members)
    return means.keep(
        key, scorer.prepares, lambda: scorer.prepare(_scores(space, parts.portable(), architectures, means))
    )


def _scores(
    space: SearchSpace, parts: Draws, architectures: Sequence[Architecture], means: Means
) -> dict[str, list[float]]:
    """Return the first draw's scores of each part; a member that failed has none, and would fail in the search."""
    columns: dict[str, list[float]] = {}
    reasons = set()
    for outcome in means.each(parts.drawn, architectures):
        if "failure" in outcome:
            reasons.add(outcome["failure"])
            continue
        for name, (score, *_) in outcome["value"].items():
            columns.setdefault(name, []).append(score)
    if not columns:
        reason = "; ".join(sorted(reasons)[:3])
        raise FailedError(f"none of {len(architectures)} random students of space {space.name!r} has scores: {reason}")
    return columns
