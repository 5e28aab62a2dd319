"""`edgestill rank-check`: test how well the training-free scores rank students on this very task.

A handful of feasible students is scored as in the search, then each is trained briefly under equal conditions.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgestill.flows.cache import kept_calibration
from edgestill.flows.short_training import ShortTrainings
from edgestill.flows.stage import Stage, trained_teacher
from edgestill.flows.stages import scoring_batch
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.errors import CandidateError, ConfigError, first_line
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.teachers import build_teacher
from edgestill.search.config import SearchConfig
from edgestill.search.ranking import (
    Comparison,
    RankedStudent,
    ScorerRank,
    compare_with_params,
    rank_scorers,
    spread_students,
)
from edgestill.search.scorers import SCORERS, builds_networks
from edgestill.search.scoring.evaluate import CostTable, Evaluator
from edgestill.search.scoring.workshop import Workshop
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import make_space

_JOURNAL = "students.jsonl"
Score = Callable[[Architecture], dict[str, float]]


class RankCheckResult(Frozen):
    configured: str  # the search's scorer
    rows: tuple[ScorerRank, ...]
    against_params: Comparison | None  # of the configured scorer; None if it is params or has no tau
    students: tuple[RankedStudent, ...]
    epochs: int
    train_images: int
    validation_images: int
    seconds: float  # of training
    notes: tuple[str, ...]


def check_ranks(stage: Stage) -> RankCheckResult:
    """Compute Kendall's tau of every scorer on briefly trained students; a resumed check repeats no finished work."""
    trainings = ShortTrainings(stage, "rank_check", stage.config.rank_check.train_images)
    with Workshop(1) as workshop:
        return _checked(stage, trainings, workshop)


def _checked(stage: Stage, trainings: ShortTrainings, workshop: Workshop) -> RankCheckResult:
    config, search = stage.config.rank_check, stage.config.search
    task, space = trainings.splits.task, make_space(search.space)
    costs = CostTable(space, task, apart=workshop.apart)
    rng = random.Random(stage.seed("rank_check", "students"))
    chosen = spread_students(space, costs, search.budget, config.students, rng)
    journal = stage.run.journal("rank_check", _JOURNAL, stage.inputs)
    entries = {(entry["what"], entry["architecture"]): entry for entry in journal.entries}

    def once(what: str, architecture: Architecture, compute: Callable[[], dict[str, Any]]) -> Mapping[str, Any]:
        text = space.format(architecture)
        entry: dict[str, Any] | None = entries.get((what, text))
        if entry is None:
            entry = {"what": what, "architecture": text} | compute()
            journal.append(entry)
        return entry

    score, notes = _all_scorers(stage, search, trainings.whole, space, costs, workshop)
    students = []
    for done, architecture in enumerate(chosen):
        text = space.format(architecture)
        stage.tick(done, len(chosen), text)
        scores = once("scores", architecture, lambda a=architecture: {"scores": score(a)})["scores"]  # type: ignore[misc]
        outcome = once("training", architecture, lambda t=text: _train(trainings, t, config.epochs))  # type: ignore[misc]
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
    stage.tick(len(chosen), len(chosen), "")
    return _result(stage, trainings.splits, students, [*notes, *_notes(search, config.students, students)])


def _result(stage: Stage, splits: Splits, students: Sequence[RankedStudent], notes: Sequence[str]) -> RankCheckResult:
    scorer = stage.config.search.scorer
    return RankCheckResult(
        configured=scorer,
        rows=rank_scorers(students, list(SCORERS)),
        against_params=None if scorer == "params" else compare_with_params(students, scorer),
        students=tuple(students),
        epochs=stage.config.rank_check.epochs,
        train_images=len(splits.train),
        validation_images=len(splits.validation),
        seconds=sum(student.seconds for student in students),
        notes=tuple(notes),
    )


def _train(trainings: ShortTrainings, architecture: str, epochs: int) -> dict[str, Any]:
    try:
        trained = trainings(architecture, 0, epochs)
    except (RuntimeError, ArithmeticError, MemoryError) as error:  # NaN, out of memory: it fails this student alone
        reason = f"{type(error).__name__}: {first_line(error)}"
        return {"failure": reason, "seconds": 0.0}
    return {"accuracy": trained.accuracy, "seconds": round(trained.seconds, 3)}


def _all_scorers(
    stage: Stage, search: SearchConfig, splits: Splits, space: SearchSpace, costs: CostTable, workshop: Workshop
) -> tuple[Score, list[str]]:
    """Return a function to score a student by every scorer, and notes on scorers that do not apply.

    Each scorer has its own evaluator, set up as in the search, so a failing one does not affect the others.
    """
    seed, trained = stage.seed("search"), search.teacher_weights == "trained"
    batch = scoring_batch(stage, splits)
    evaluators, notes = dict[str, Evaluator](), list[str]()
    for name in SCORERS:
        teacher = trained_teacher(stage, splits.task) if trained else build_teacher(stage.config.teacher, splits.task)
        try:
            evaluators[name] = Evaluator(
                space,
                splits.task,
                batch,
                [name],
                teacher=teacher,
                seed=seed,
                draws=search.draws,
                trained=trained,
                comparable=True,
                guard=builds_networks(name),
                costs=costs,
                calibrated=kept_calibration,
                each=workshop.each,
            )
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
    if search.scorer == "diswot" and search.combine != "sum":
        notes.append(f"diswot is its raw sum here; the search joins its metrics by {search.combine}")
    return notes
