"""Search stage: the winner by the configured scorer, and the baselines' picks."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.engines import LOCAL
from edgestill.pipeline.errors import FailedError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.task import Task
from edgestill.search.config import SearchConfig
from edgestill.search.fitness import front, ranked
from edgestill.search.hardware_costs import HardwareCosts, LatencySource
from edgestill.search.latency.confirm import Confirmed, confirm_winner
from edgestill.search.result import Candidate, Failure, SearchResult
from edgestill.search.scorers import SCORERS
from edgestill.search.scoring.attempt import guarded
from edgestill.search.scoring.conditions import Conditions, Keep, compute_anew
from edgestill.search.scoring.cost_table import CostTable, Shipped
from edgestill.search.scoring.workshop import Workshop
from edgestill.search.searches import Deployment, Log, Searches
from edgestill.search.space import SearchSpace
from edgestill.search.spaces import make_space
from edgestill.search.strategies import is_exhaustive
from edgestill.search.strategies.feasible import Bounds, find_feasible


def find_student(
    config: SearchConfig,
    task: Task,
    batch: Batch,
    teacher: nn.Module | None,
    *,
    seed: int,
    latency: LatencySource | None = None,
    shipped: Shipped | None = None,
    known: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Mapping[str, Any]], None] = lambda entry: None,
    tick: Callable[[int, int, str], None] = lambda done, total, note: None,
    keep: Keep = compute_anew,
    first: Sequence[str] = (),
    engine: Any = LOCAL,
) -> SearchResult:
    """Search with the configured scorer, and again with each baseline at the same effort and seed.

    Args:
        first: architectures that every search scores before others, as far as they are within budget.
        engine: configuration of `pipeline.engines`: where candidates are scored.
        latency: source of latencies; needed if the budget has max_latency_ms.
        shipped: maps a student to its shipped network, subject to the budget; None: the student itself.
        teacher: None for a black box; else re-initialised in place unless `config.teacher_weights` is "trained".
        known: entries given to `record` by an interrupted search; those candidates are not scored again.
        keep: keeps what scorers with parts prepare, such as the ensemble's scale.

    Raises:
        BudgetError: nothing in the space meets the budget.
        ConfigError: the scorer cannot compare the space's students with this teacher.
        FailedError: every candidate failed.
    """
    space = make_space(config.space)
    trained = config.uses_trained_teacher
    conditions = Conditions(batch, teacher, seed, draws=config.draws, trained=trained, comparable=True)
    log = Log(known, record, tick, keep)
    seeds = tuple(space.parse(text) for text in first)
    searches = Searches(config, space, task, conditions, Deployment(latency, shipped), log, seeds, engine)
    if teacher is not None:
        SCORERS[config.scorer].check(space, teacher)
        searches.notes += SCORERS[config.scorer].notes(space, teacher)
    with searches.workshop:
        candidates = searches.by(config.scorer, f"scoring by {config.scorer}")
        if not candidates:
            raise FailedError(_all_failed(searches.journal.failures))
        picks = _picks(searches, config.baselines)
    order = ranked(candidates, searches.fitness(candidates, config.scorer))
    confirmed = confirm_winner(order, searches.architecture_of, config.budget, latency, known=known, record=record)
    return _result(config, space, searches, candidates, picks, confirmed)


def _picks(searches: Searches, baselines: Sequence[str]) -> dict[str, Candidate]:
    """Search with each baseline; one without a scored candidate is noted and has no pick."""
    picks = {}
    for name in baselines:
        found = searches.by(name, f"baseline {name}")
        if found:
            picks[name] = ranked(found, searches.fitness(found, name))[0]
        else:
            searches.notes.append(f"baseline {name} scored no candidate")
    return picks


def _result(
    config: SearchConfig,
    space: SearchSpace,
    searches: Searches,
    candidates: Sequence[Candidate],
    picks: dict[str, Candidate],
    confirmed: Confirmed,
) -> SearchResult:
    is_all = is_exhaustive(space.size, config.evaluations, config.strategy)
    failed = sum(failure.scorer == config.scorer for failure in searches.journal.failures)
    return SearchResult(
        space=space.name,
        space_size=space.size,
        scorer=config.scorer,
        combine=config.combine,
        scorer_settings=config.scorer_settings,
        budget=config.budget,
        winner=confirmed.winner,
        strategy="exhaustive" if is_all else config.strategy.name,
        front=front(candidates, searches.fitness(candidates, config.scorer)),
        picks=picks,
        evaluated=len(candidates) + failed,
        exhaustive=is_all,
        failures=tuple(searches.failures),
        candidates=tuple(candidates),
        notes=(*searches.notes, *searches.on_latency, *confirmed.notes),
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


def _all_failed(failures: Sequence[Failure]) -> str:
    reasons = {failure.reason for failure in failures}
    return f"all {len(failures)} candidates failed: {'; '.join(sorted(reasons)[:3])}"
