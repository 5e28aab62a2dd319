"""Search stage: the winner by the configured scorer, and the baselines' picks."""

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.errors import ConfigError, FailedError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.task import Task
from edgestill.search.config import SearchConfig
from edgestill.search.hardware_costs import HardwareCosts, LatencySource
from edgestill.search.journal import Journal
from edgestill.search.latency.confirm import confirm_winner
from edgestill.search.pareto import objectives, pareto_front
from edgestill.search.result import Candidate, Failure, SearchResult
from edgestill.search.scorers import builds_networks
from edgestill.search.scoring.attempt import guarded, on_threads
from edgestill.search.scoring.conditions import Conditions, Keep, Means, compute_anew
from edgestill.search.scoring.cost_table import CostTable, Shipped
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.scoring.workshop import Workshop
from edgestill.search.space import Architecture
from edgestill.search.spaces import make_space
from edgestill.search.strategies import Search, is_exhaustive, run_strategy
from edgestill.search.strategies.feasible import Bounds, find_feasible

_DISWOT_TERMS = ("diswot_semantic", "diswot_relation")


def find_student(
    config: SearchConfig,
    task: Task,
    batch: Batch,
    teacher: nn.Module,
    *,
    seed: int,
    latency: LatencySource | None = None,
    shipped: Shipped | None = None,
    known: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Mapping[str, Any]], None] = lambda entry: None,
    tick: Callable[[int, int, str], None] = lambda done, total, note: None,
    keep: Keep = compute_anew,
) -> SearchResult:
    """Search with the configured scorer, and again with each baseline at the same effort and seed.

    Args:
        latency: source of latencies; needed if the budget has max_latency_ms.
        shipped: maps a student to its shipped network, subject to the budget; None: the student itself.
        teacher: re-initialised in place unless `config.teacher_weights` is "trained".
        known: entries given to `record` by an interrupted search; those candidates are not scored again.
        keep: keeps what scorers with parts prepare, such as the ensemble's scale.

    Raises:
        BudgetError: nothing in the space meets the budget.
        ConfigError: the scorer cannot compare the space's students with this teacher.
        FailedError: every candidate failed.
    """
    space = make_space(config.space)
    journal, workshop = Journal(space, known, record), Workshop(config.workers)
    dims = space.embedding_dims()
    teacher_dim = getattr(teacher, "embedding_dim", None)
    counts = CostTable(space, task, apart=workshop.apart)
    held = CostTable(space, task, shipped, workshop.apart) if shipped else counts  # scorers count the student itself
    measured = HardwareCosts(
        held, space, task, config.budget, latency, shipped=shipped, apart=workshop.apart, known=known, record=record
    )
    costs = guarded(measured, lambda architecture, outcome: journal.fail("cost", architecture, outcome))
    notes = []
    if config.scorer == "diswot_semantic" and dims != {teacher_dim}:
        raise ConfigError(
            [
                f"search.scorer: diswot_semantic compares embeddings of equal width; the space's are {_widths(dims)} "
                f"wide and the teacher's is {teacher_dim}; use diswot_relation, or fix the last width at {teacher_dim}"
            ]
        )
    if config.scorer == "diswot" and dims != {teacher_dim}:
        notes.append(
            f"students' embeddings are {_widths(dims)} wide and the teacher's is {teacher_dim}, so DisWOT's semantic "
            "metric does not apply and its relation metric alone ranks them"
        )

    def run(scorer: str, stage: str) -> list[Candidate]:
        terms = (scorer, *_DISWOT_TERMS) if scorer == "diswot" else (scorer,)
        with on_threads(1):
            conditions = Conditions(
                batch,
                teacher,
                seed,
                config.draws,
                trained=config.uses_trained_teacher,
                comparable=True,
                guard=builds_networks(scorer),
            )
            evaluator = Evaluator(space, task, terms, conditions, Means(counts, keep, workshop.each))
        notes.extend(_missing(evaluator))

        outcomes = workshop.scorer(evaluator, scorer)

        def score(architectures: Sequence[Architecture]) -> Iterator[Candidate | None]:
            for architecture, entry in journal.score(scorer, architectures, outcomes):
                yield None if entry is None else _candidate(entry, costs(architecture))

        search = Search[Candidate](
            space,
            costs,
            config.budget,
            score=score,
            rank=lambda found: fitness(found, scorer, config.combine),
            evaluations=config.evaluations,
            rng=random.Random(derive_seed(seed, config.strategy.name)),
            tick=lambda done, total: tick(done, total, stage),
        )
        return run_strategy(search, config.strategy)

    with workshop:
        candidates = run(config.scorer, f"scoring by {config.scorer}")
        if not candidates:
            raise FailedError(_all_failed(journal.failures))
        picks = {}
        for name in config.baselines:
            found = run(name, f"baseline {name}")
            if found:
                picks[name] = _winner(found, name, config.combine)
            else:
                notes.append(f"baseline {name} scored no candidate")
    is_all = is_exhaustive(space.size, config.evaluations, config.strategy)
    confirmed = confirm_winner(
        _ranked(candidates, config.scorer, config.combine), space, config.budget, latency, known=known, record=record
    )
    return SearchResult(
        space=space.name,
        space_size=space.size,
        scorer=config.scorer,
        combine=config.combine,
        budget=config.budget,
        winner=confirmed.winner,
        strategy="exhaustive" if is_all else config.strategy.name,
        front=_front(candidates, config.scorer, config.combine),
        picks=picks,
        evaluated=len(candidates) + sum(failure.scorer == config.scorer for failure in journal.failures),
        exhaustive=is_all,
        failures=(*journal.failures, *measured.failures),
        candidates=tuple(candidates),
        notes=(*notes, *confirmed.notes),
        latency=confirmed.latency,
    )


def require_feasible(
    config: SearchConfig,
    task: Task,
    seed: int,
    latency: LatencySource | None = None,
    shipped: Shipped | None = None,
) -> None:
    """Find one member of the space within budget, before any costly work begins.

    The latency limit is left to the search if latencies are measured.

    Raises:
        BudgetError: none was found; names the limit and the nearest miss.
    """
    space = make_space(config.space)
    budget = config.budget
    if latency is None or latency.is_measured:
        budget = budget.model_copy(update={"max_latency_ms": None})
    with Workshop(1) as workshop:
        counts = CostTable(space, task, shipped, workshop.apart)
        costs = HardwareCosts(counts, space, task, budget, latency, shipped=shipped, apart=workshop.apart)
        bounds = Bounds(space, guarded(costs, lambda architecture, outcome: None), budget)
        find_feasible(bounds, random.Random(derive_seed(seed, "feasible")))


def fitness(candidates: Sequence[Candidate], scorer: str, combine: str) -> list[float]:
    """Return the values for selection; for `diswot`, its two metrics joined.

    `sum` is the paper's raw sum, where the semantic metric is some hundred times the larger. `zscore` and
    `rank_sum` weigh both alike over the given candidates.
    """
    if scorer != "diswot" or combine == "sum" or any(_DISWOT_TERMS[0] not in c.scores for c in candidates):
        return [candidate.scores[scorer] for candidate in candidates]
    scale = _zscores if combine == "zscore" else _ranks
    columns = [scale([candidate.scores[term] for candidate in candidates]) for term in _DISWOT_TERMS]
    return [sum(pair) for pair in zip(*columns, strict=True)]


def _missing(evaluator: Evaluator) -> list[str]:
    """Return a note for each scorer with missing parts in this space."""
    return [
        f"{scorer} does without {', '.join(parts)}, which have no score on most of this space beside this teacher"
        for scorer, parts in evaluator.missing.items()
        if parts
    ]


def _candidate(entry: Mapping[str, Any], cost: Cost) -> Candidate:
    return Candidate(architecture=entry["architecture"], cost=cost, scores=entry["scores"], std=entry["std"])


def _all_failed(failures: Sequence[Failure]) -> str:
    reasons = {failure.reason for failure in failures}
    return f"all {len(failures)} candidates failed: {'; '.join(sorted(reasons)[:3])}"


def _front(candidates: Sequence[Candidate], scorer: str, combine: str) -> tuple[Candidate, ...]:
    """Pareto front of fitness and known costs, the fittest first."""
    values = fitness(candidates, scorer, combine)
    front = pareto_front(objectives(candidates, values))
    return tuple(candidates[i] for i in sorted(front, key=lambda i: -values[i]))


def _winner(candidates: Sequence[Candidate], scorer: str, combine: str) -> Candidate:
    return _ranked(candidates, scorer, combine)[0]


def _ranked(candidates: Sequence[Candidate], scorer: str, combine: str) -> list[Candidate]:
    """Sort the fittest first; ties go to fewer parameters, then to the alphabet."""
    pairs = zip(fitness(candidates, scorer, combine), candidates, strict=True)
    ordered = sorted(pairs, key=lambda pair: (-pair[0], pair[1].cost.params, pair[1].architecture))
    return [candidate for _, candidate in ordered]


def _zscores(values: list[float]) -> list[float]:
    mean, std = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / std if std > 0 else 0.0 for value in values]


def _ranks(values: list[float]) -> list[float]:
    order = sorted(values)
    return [(order.index(value) + len(order) - order[::-1].index(value) - 1) / 2 for value in values]


def _widths(dims: frozenset[int]) -> str:
    return ", ".join(str(dim) for dim in sorted(dims))
