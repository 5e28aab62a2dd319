"""Searches of one space, each by another scorer; all have the same budget, effort and seed."""

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edgestill.pipeline.device import on_threads
from edgestill.pipeline.engines import LOCAL
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.task import Task
from edgestill.search.config import SearchConfig
from edgestill.search.fitness import fitness
from edgestill.search.hardware_costs import HardwareCosts, LatencySource
from edgestill.search.journal import Journal
from edgestill.search.result import Candidate, Failure
from edgestill.search.scorers import SCORERS, builds_networks
from edgestill.search.scoring.attempt import guarded
from edgestill.search.scoring.conditions import Conditions, Keep, Means
from edgestill.search.scoring.cost_table import CostTable, Shipped
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.scoring.workshop import Workshop
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.strategies import Search, run_strategy


class Deployment(NamedTuple):
    """Deployed form of students, which the budget limits."""

    latency: LatencySource | None  # needed if the budget has max_latency_ms
    shipped: Shipped | None  # maps a student to its shipped network; None: the student itself


class Log(NamedTuple):
    """Log of a search, kept and shown by its caller."""

    known: Sequence[Mapping[str, Any]]  # entries of an interrupted search
    record: Callable[[Mapping[str, Any]], None]
    tick: Callable[[int, int, str], None]
    keep: Keep  # for what scorers with parts prepare


class Searches:
    """Searches of one space; `workshop` must be entered around them.

    Args:
        conditions: of every search; `guard` and `configs` follow from the scorer.
        first: architectures that every search begins with.
        engine: configuration of `pipeline.engines`: where candidates are scored.
    """

    def __init__(
        self,
        config: SearchConfig,
        space: SearchSpace,
        task: Task,
        conditions: Conditions,
        deployment: Deployment,
        log: Log,
        first: Sequence[Architecture] = (),
        engine: Any = LOCAL,
    ) -> None:
        self._config, self._space, self._task, self._conditions, self._tick = config, space, task, conditions, log.tick
        self._first = tuple(first)
        self.workshop = Workshop(config.workers, engine=engine)
        apart, (latency, shipped) = self.workshop.apart, deployment
        self.journal = Journal(space, log.known, log.record)
        counts = CostTable(space, task, apart=apart)
        held = CostTable(space, task, shipped, apart) if shipped else counts  # scorers count the student itself
        self._measured = HardwareCosts(
            held, space, task, config.budget, latency, shipped=shipped, apart=apart, known=log.known, record=log.record
        )
        self._costs = guarded(self._measured, lambda candidate, why: self.journal.fail("cost", candidate, why))
        self._means = Means(counts, log.keep, self.workshop.each)
        self.notes: list[str] = []

    @property
    def failures(self) -> list[Failure]:
        """Failures of all searches: those in the journal, then those of latencies."""
        return [*self.journal.failures, *self._measured.failures]

    @property
    def on_latency(self) -> tuple[str, ...]:
        """A sentence on how many latencies were measured, where a model learnt from them."""
        learner = self._measured.learner
        if learner is None or not learner.predicted:
            return ()
        return (
            f"latencies: {learner.measured} of {learner.measured + learner.predicted} students were measured; a model "
            "that learnt from them was sure on which side of max_latency_ms the others are",
        )

    def by(self, scorer: str, stage: str) -> list[Candidate]:
        """Return the candidates scored by a search with this scorer, in the order met; `stage` names it in ticks."""
        config = self._config
        search = Search[Candidate](
            self._space,
            self._costs,
            config.budget,
            score=self._scoring(scorer),
            rank=lambda found: self.fitness(found, scorer),
            evaluations=config.evaluations,
            rng=random.Random(derive_seed(self._conditions.seed, config.strategy.name)),
            tick=lambda done, total: self._tick(done, total, stage),
            first=self._first,
        )
        return run_strategy(search, config.strategy)

    def fitness(self, candidates: Sequence[Candidate], scorer: str) -> list[float]:
        """Return the values that a search by this scorer selects by."""
        return fitness(candidates, scorer, self._config.scorer_config(scorer))

    def architecture_of(self, candidate: Candidate) -> Architecture:
        """Return the architecture of a candidate that one of these searches scored."""
        return self.journal.architecture(candidate.architecture)

    def _scoring(self, scorer: str) -> Callable[[Sequence[Architecture]], Iterator[Candidate | None]]:
        outcomes = self.workshop.scorer(self._evaluator(scorer), scorer)

        def score(architectures: Sequence[Architecture]) -> Iterator[Candidate | None]:
            for architecture, entry in self.journal.score(scorer, architectures, outcomes):
                yield None if entry is None else _candidate(entry, self._costs(architecture))

        return score

    def _evaluator(self, scorer: str) -> Evaluator:
        configs = {scorer: self._config.scorer_config(scorer)}
        conditions = dataclasses.replace(self._conditions, guard=builds_networks(scorer), configs=configs)
        asked = (scorer, *SCORERS[scorer].beside)
        with on_threads(1):
            evaluator = Evaluator(self._space, self._task, asked, conditions, self._means)
        self.notes += [
            f"{name} does without {', '.join(parts)}, which have no score on most of this space beside this teacher"
            for name, parts in evaluator.missing.items()
            if parts
        ]
        return evaluator


def _candidate(entry: Mapping[str, Any], cost: Cost) -> Candidate:
    return Candidate(architecture=entry["architecture"], cost=cost, scores=entry["scores"], std=entry["std"])
