"""Search the student's architecture; a resumed search scores no candidate again."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from edgestill.flows.cache import kept_prepared
from edgestill.flows.latency import latency_model, latency_of
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.heads import heads, telling_of_heads, what_ships
from edgestill.flows.stages.results import DataResult, Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.wording.words import failure_counts, latency_clause
from edgestill.pipeline.figures import listing
from edgestill.pipeline.runs.rundir import file_digest
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.config import SearchConfig
from edgestill.search.result import SearchResult
from edgestill.search.search import find_student
from edgestill.search.strategies import is_exhaustive


class Search(Stage[SearchResult]):
    name = "search"
    result = SearchResult
    to_change = "search.space or search.scorer"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config = context.config
        trained = results.of(TeacherResult) if config.search.uses_trained_teacher else None
        predicted = latency_model_digest(context)
        begun = results.warm_start.seeds
        given = config.search, config.teacher, trained, *predicted, *heads(config.distill), *([begun] if begun else [])
        target = config.latency_target
        on_target = target is not None and config.search.budget.max_latency_ms is not None
        return results.of(DataResult), *given, *([target] if on_target else [])

    def work(self, context: StageContext, results: Results) -> SearchResult:
        config, task = context.config.search, context.splits().task
        journal = context.run.journal("search", "history.jsonl", context.inputs)
        teacher = context.teacher_to_score_by(task)
        first = results.warm_start.seeds
        retried = []

        def record(entry: Mapping[str, Any]) -> None:
            journal.append(entry)
            retried.extend([entry["architecture"]] * ("retried" in entry))

        result = _found(context, config, teacher, journal.entries, record, context.tick, first)
        if retried:
            context.say(f"scored again, as the workers that had them were lost: {listing(retried)}")
        return result

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        config = context.config.search
        latency = latency_of(context, probes.splits.task)
        fewest, few, more = _TIMED if latency is None or not latency.is_measured else _TIMED_WITH_LATENCY

        def seconds(evaluations: int) -> float:
            start, less = time.perf_counter(), config.model_copy(update={"evaluations": evaluations})
            _found(context, less, context.teacher_to_draw(probes.splits.task))
            return time.perf_counter() - start

        seconds(fewest)  # prepares what is kept in the cache
        begun, ended = seconds(few), seconds(more)
        each = max(0.0, ended - begun) / (more - few)
        size = context.space.size
        count = size if is_exhaustive(size, config.evaluations, config.strategy) else config.evaluations
        searches = 1 + len(config.baselines)
        bound = "; at most, as most latencies are predicted" if latency is not None and latency.learns else ""
        return Estimate(begun + each * max(0, count - few), note=f"{searches} searches of {count:,} candidates{bound}")

    def sentence(self, result: SearchResult) -> str:
        own = [failure for failure in result.failures if failure.scorer in (result.scorer, "cost")]
        failed = f", {len(own)} failed ({failure_counts(own)})" if own else ""
        cost = result.winner.cost
        return (
            f"{result.winner.architecture} of {result.evaluated} scored{failed}; {cost.params:,} parameters, "
            f"{cost.flops:,} FLOPs{latency_clause(result.latency)}"
        )


_TIMED, _TIMED_WITH_LATENCY = (2, 4, 12), (1, 2, 6)  # candidates of the searches that an estimate is made from


def _found(
    context: StageContext,
    config: SearchConfig,
    teacher: nn.Module | None,
    known: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Mapping[str, Any]], None] = lambda entry: None,
    tick: Callable[[int, int, str], None] = lambda done, total, note: None,
    first: Sequence[str] = (),
) -> SearchResult:
    splits = context.splits()
    with telling_of_heads(context.config.distill):
        return find_student(
            config,
            splits.task,
            context.scoring_batch(splits),
            teacher,
            seed=context.seed("search"),
            latency=latency_of(context, splits.task),
            shipped=what_ships(context.config.distill),
            known=known,
            record=record,
            tick=tick,
            keep=kept_prepared,
            first=first,
            engine=context.config.device.engine,
        )


def latency_model_digest(context: StageContext) -> tuple[str, ...]:
    """Digest of the latency model's file, if the search uses one: its path alone does not identify its content."""
    search = context.config.search
    model = latency_model(context.run, search)
    return () if model is None or search.budget.max_latency_ms is None else (file_digest(model),)
