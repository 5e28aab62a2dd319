"""Test how well the training-free scores rank students on this very task: Kendall's tau of every scorer.

A handful of feasible students is scored as in the search, then each is trained briefly under equal conditions. A
resumed check repeats no finished work.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgestill.flows.cache import kept_prepared
from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import RankCheckResult, Results
from edgestill.flows.stages.short_training import ShortTrainings
from edgestill.flows.stages.stage import Stage
from edgestill.flows.wording.verdicts import verdict
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.errors import CandidateError, ConfigError, first_line
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.config import SearchConfig
from edgestill.search.rank_correlation import (
    RankedStudent,
    compare_with_params,
    rank_scorers,
    spread_students,
)
from edgestill.search.scorers import SCORERS, builds_networks
from edgestill.search.scoring.conditions import Conditions, Means
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.scoring.workshop import Workshop
from edgestill.search.space import Architecture, SearchSpace

_JOURNAL = "students.jsonl"
Score = Callable[[Architecture], dict[str, float]]


class RankCheck(Stage[RankCheckResult]):
    name = "rank_check"
    result = RankCheckResult

    def takes_part(self, config: RunConfig) -> bool:
        return config.rank_check.students > 0

    def is_last(self, config: RunConfig) -> bool:
        return config.rank_check.only

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config = context.config
        return results.of(TeacherResult), config.rank_check, config.search, config.distill, *context.start_digests

    def work(self, context: StageContext, results: Results) -> RankCheckResult:
        trainings = ShortTrainings(context, "rank_check", context.config.rank_check.train_images)
        with Workshop(1) as workshop:
            return _checked(context, trainings, workshop)

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        config = context.config.rank_check
        epochs = config.students * config.epochs
        seconds = probes.taught_s(epochs, config.train_images, config.students)
        return Estimate(seconds, note=f"{config.students} trainings of {config.epochs} epochs; scores come on top")

    def sentence(self, result: RankCheckResult) -> str:
        return verdict(result)


def _checked(context: StageContext, trainings: ShortTrainings, workshop: Workshop) -> RankCheckResult:
    config, search = context.config.rank_check, context.config.search
    task, space = trainings.splits.task, context.space
    costs = CostTable(space, task, apart=workshop.apart)
    rng = random.Random(context.seed("rank_check", "students"))
    chosen = spread_students(space, costs, search.budget, config.students, rng)
    journal = context.run.journal("rank_check", _JOURNAL, context.inputs)
    entries = {(entry["what"], entry["architecture"]): entry for entry in journal.entries}

    def once(what: str, architecture: Architecture, compute: Callable[[], dict[str, Any]]) -> Mapping[str, Any]:
        text = space.format(architecture)
        entry: dict[str, Any] | None = entries.get((what, text))
        if entry is None:
            entry = {"what": what, "architecture": text} | compute()
            journal.append(entry)
        return entry

    score, notes = _all_scorers(context, search, trainings.whole, space, costs, workshop)
    students = []
    for done, architecture in enumerate(chosen):
        text = space.format(architecture)
        context.tick(done, len(chosen), text)
        scores = once("scores", architecture, lambda a=architecture: {"scores": score(a)})["scores"]  # type: ignore[misc]
        outcome = once("training", architecture, lambda a=architecture: _train(trainings, a, config.epochs))  # type: ignore[misc]
        students.append(
            RankedStudent(
                architecture=text,
                cost=costs(architecture),
                scores=scores,
                accuracy=outcome.get("accuracy"),
                seconds=outcome["seconds"],
                failure=outcome.get("failure"),
            )
        )
    context.tick(len(chosen), len(chosen), "")
    return _result(context, trainings.splits, students, [*notes, *_notes(search, config.students, students)])


def _result(
    context: StageContext, splits: Splits, students: Sequence[RankedStudent], notes: Sequence[str]
) -> RankCheckResult:
    scorer, metric = context.config.search.scorer, context.config.distill.training.metric
    return RankCheckResult(
        configured=scorer,
        rows=rank_scorers(students, list(SCORERS)),
        against_params=None if scorer == "params" else compare_with_params(students, scorer),
        students=tuple(students),
        epochs=context.config.rank_check.epochs,
        train_images=len(splits.train),
        validation_images=len(splits.validation),
        seconds=sum(student.seconds for student in students),
        notes=tuple(notes),
        metric=None if metric == "accuracy" else metric,
    )


def _train(trainings: ShortTrainings, architecture: Architecture, epochs: int) -> dict[str, Any]:
    try:
        trained = trainings(architecture, 0, epochs)
    except (RuntimeError, ArithmeticError, MemoryError) as error:  # NaN, out of memory: it fails this student alone
        reason = f"{type(error).__name__}: {first_line(error)}"
        return {"failure": reason, "seconds": 0.0}
    return {"accuracy": trained.accuracy, "seconds": round(trained.seconds, 3)}


def _all_scorers(
    context: StageContext,
    search: SearchConfig,
    splits: Splits,
    space: SearchSpace,
    costs: CostTable,
    workshop: Workshop,
) -> tuple[Score, list[str]]:
    """Return a function to score a student by every scorer, and notes on scorers that do not apply.

    Each scorer has its own evaluator, set up as in the search, so a failing one does not affect the others.
    """
    batch = context.scoring_batch(splits)
    means = Means(costs, kept_prepared, workshop.each)
    evaluators, notes = dict[str, Evaluator](), list[str]()
    for name in SCORERS:
        conditions = Conditions(
            batch,
            context.teacher_to_score_by(splits.task),
            context.seed("search"),
            search.draws,
            trained=search.uses_trained_teacher,
            comparable=True,
            guard=builds_networks(name),
            configs={name: search.scorer_config(name)},
        )
        try:
            evaluators[name] = Evaluator(space, splits.task, [name], conditions, means)
        except ConfigError as error:
            notes.append(f"{name} does not apply: {error}")

    askers = [workshop.apart(evaluator.portable()) for evaluator in evaluators.values()]

    def score(architecture: Architecture) -> dict[str, float]:
        found: dict[str, float] = {}
        for ask in askers:
            try:
                found |= ask(architecture).values
            except CandidateError:
                continue  # counted among the scorer's students without a score
        return found

    for name, evaluator in evaluators.items():
        for parts in filter(None, evaluator.missing.values()):
            notes.append(
                f"{name} does without {', '.join(parts)}, which have no score in this space beside this teacher"
            )
    return score, notes


def _notes(search: SearchConfig, wanted: int, students: Sequence[RankedStudent]) -> list[str]:
    notes = []
    if len(students) < wanted:
        notes.append(f"{len(students)} students are all that the space has within the budget; {wanted} were asked for")
    failed = [f"{student.architecture} ({student.failure})" for student in students if student.failure]
    if failed:
        notes.append(f"{len(failed)} could not be trained and count for no scorer: {'; '.join(failed)}")
    kind = SCORERS[search.scorer]
    ranked_by = kind.fitness_name(search.scorer_config(kind.name))
    if ranked_by != kind.name:
        notes.append(f"{kind.name} is each student's own score here; the search ranks by {ranked_by}")
    return notes
