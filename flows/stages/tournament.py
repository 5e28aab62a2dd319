"""Choose the student by short trainings of the best-scored; a resumed tournament repeats no finished training."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from edgestill.distill.elsewhere.training import TeachAtOnce
from edgestill.flows.latency import latency_of
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.elsewhere.workers import by_workers
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.short_training import ShortTrainings
from edgestill.flows.stages.stage import Stage
from edgestill.flows.wording.verdicts import lead_words
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.training.difference import balanced_difference
from edgestill.pipeline.training.metrics import unpacked
from edgestill.search.result import Candidate, SearchResult
from edgestill.search.space import Architecture
from edgestill.search.tournament import Interval, TournamentResult, TrainAtOnce, Trained, play, rungs

_JOURNAL = "rungs.jsonl"


class Tournament(Stage[TournamentResult]):
    name = "tournament"
    result = TournamentResult
    to_change = "search.space or search.tournament"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        search, distill = context.config.search, context.config.distill
        chosen_by = results.of(TeacherResult), results.of(SearchResult), search.shortlist, search.tournament, distill
        beside = results.warm_start.students
        return *chosen_by, *context.start_digests, *([beside] if beside else [])

    def work(self, context: StageContext, results: Results) -> TournamentResult:
        return _played(context, results.of(SearchResult), results.warm_start.students)

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        config = context.config.search
        if config.shortlist < 2:
            return Estimate(0.0, note="off")
        plan = rungs(min(config.shortlist + 1, context.space.size), config.tournament)
        epochs = sum(rung.epochs * rung.entrants for rung in plan)
        trainings = sum(rung.entrants for rung in plan)
        seconds = probes.taught_s(epochs, config.tournament.train_images, trainings)
        return Estimate(seconds, note=f"{trainings} trainings, {epochs} epochs in all")

    def sentence(self, result: TournamentResult) -> str:
        if not result.enabled:
            return "off"
        ahead = f", {' and '.join(map(lead_words, result.leads))}" if result.leads else ""
        change = f"changed {result.change}" if result.changed else f"kept {result.winner.architecture}"
        rounds = f"{len(result.entrants)} students, {result.epochs} epochs" if result.rungs else "nothing to decide"
        failed = sum(entrant.failure is not None for entrant in result.entrants)
        return f"{change}{ahead}; {rounds}{f', {failed} failed' if failed else ''}"


def _played(context: StageContext, found: SearchResult, beside: Sequence[str]) -> TournamentResult:
    config = context.config.search
    if config.shortlist < 2:
        return TournamentResult(enabled=False, winner=found.winner, search_winner=found.winner)
    trainings = ShortTrainings(context, "tournament", config.tournament.train_images)
    require_latency = _measured_latency(context, trainings.splits.task)

    def checked(candidate: Candidate, rung: int) -> Architecture:
        architecture = context.architecture_of(candidate)
        if rung == 0 and candidate.architecture != found.winner.architecture:  # the search measured its winner
            require_latency(candidate, architecture)
        return architecture

    def train(candidate: Candidate, rung: int, epochs: int) -> Trained:
        return trainings(checked(candidate, rung), rung, epochs)

    journal = context.run.journal("tournament", _JOURNAL, context.inputs)
    with by_workers(context, lambda: (trainings.teacher, trainings.splits)) as teach:
        result = play(
            found,
            config.shortlist,
            config.tournament,
            train,
            beside=beside,
            known=journal.entries,
            record=journal.append,
            tick=context.tick,
            interval=_interval_of_recalls(context, trainings.splits),
            at_once=None if teach is None else _training_at_once(trainings, teach, checked),
        )
    sizes = {"validation_images": len(trainings.splits.validation), "train_images": len(trainings.splits.train)}
    return result.model_copy(update=sizes)


def _training_at_once(
    trainings: ShortTrainings, teach: TeachAtOnce, checked: Callable[[Candidate, int], Architecture]
) -> TrainAtOnce:
    """Train the entrants of a rung at once, after all of them were checked: workers would disturb a measurement."""

    def train(candidates: Sequence[Candidate], rung: int, epochs: int) -> Iterator[Callable[[], Trained]]:
        found = [_caught(checked, candidate, rung) for candidate in candidates]
        sound = [architecture for architecture in found if not isinstance(architecture, CandidateError)]
        coming = trainings.at_once(teach, sound, rung, epochs)
        return (partial(_raise, each) if isinstance(each, CandidateError) else next(coming) for each in found)

    return train


def _caught(
    checked: Callable[[Candidate, int], Architecture], candidate: Candidate, rung: int
) -> Architecture | CandidateError:
    try:
        return checked(candidate, rung)
    except CandidateError as error:
        return error


def _raise(error: CandidateError) -> Trained:
    raise error


def _interval_of_recalls(context: StageContext, splits: Splits) -> Interval | None:
    """Interval of a lead in mean recall; None where the accuracy chooses."""
    if context.config.distill.training.metric == "accuracy":
        return None
    targets = splits.validation.targets.cpu().numpy()

    def interval(ours: str, theirs: str, comparisons: int) -> tuple[float, float]:
        first, second = (unpacked(text, len(targets)) for text in (ours, theirs))
        return balanced_difference(first, second, targets, comparisons).interval

    return interval


def _measured_latency(context: StageContext, task: Task) -> Callable[[Candidate, Architecture], None]:
    """Return a check to measure an entrant here and refuse it above the latency limit.

    It does nothing without a limit, if the target is another machine, or for an entrant that the search measured.
    """
    limit, source = context.config.search.budget.max_latency_ms, latency_of(context, task)

    def require(candidate: Candidate, architecture: Architecture) -> None:
        if source is None or limit is None or source.measure is None or candidate.cost.latency_error is None:
            return
        measured = source.measure(architecture)
        if measured > limit:
            raise CandidateError(f"predicted within max_latency_ms {limit:g} and measured at {measured:.4g} ms")

    return require
