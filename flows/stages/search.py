"""Search the student's architecture; a resumed search scores no candidate again."""

from typing import Any

from edgestill.flows.cache import kept_prepared
from edgestill.flows.latency import latency_model, latency_of
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.heads import heads, telling_of_heads, what_ships
from edgestill.flows.stages.results import DataResult, Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.words import failure_counts, latency_clause
from edgestill.pipeline.runs.rundir import file_digest
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.result import SearchResult
from edgestill.search.search import find_student


class Search(Stage[SearchResult]):
    name = "search"
    result = SearchResult
    to_change = "search.space or search.scorer"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config = context.config
        trained = results.of(TeacherResult) if config.search.uses_trained_teacher else None
        predicted = latency_model_digest(context)
        return results.of(DataResult), config.search, config.teacher, trained, *predicted, *heads(config.distill)

    def work(self, context: StageContext, results: Results) -> SearchResult:
        config = context.config.search
        task = context.splits().task
        journal = context.run.journal("search", "history.jsonl", context.inputs)
        teacher = context.teacher_to_score_by(task)
        with telling_of_heads(context.config.distill):
            return find_student(
                config,
                task,
                context.scoring_batch(context.splits()),
                teacher,
                seed=context.seed("search"),
                latency=latency_of(context, task),
                shipped=what_ships(context.config.distill),
                known=journal.entries,
                record=journal.append,
                tick=context.tick,
                keep=kept_prepared,
            )

    def sentence(self, result: SearchResult) -> str:
        own = [failure for failure in result.failures if failure.scorer in (result.scorer, "cost")]
        failed = f", {len(own)} failed ({failure_counts(own)})" if own else ""
        cost = result.winner.cost
        return (
            f"{result.winner.architecture} of {result.evaluated} scored{failed}; {cost.params:,} parameters, "
            f"{cost.flops:,} FLOPs{latency_clause(result.latency)}"
        )


def latency_model_digest(context: StageContext) -> tuple[str, ...]:
    """Digest of the latency model's file, if the search uses one: its path alone does not identify its content."""
    search = context.config.search
    model = latency_model(context.run, search)
    return () if model is None or search.budget.max_latency_ms is None else (file_digest(model),)
