"""The tournament stage: short trainings decide between the best-scored students."""

from collections.abc import Callable

from edgestill.flows.stages.latency import latency_of
from edgestill.flows.stages.short_training import ShortTrainings
from edgestill.flows.stages.context import Stage
from edgestill.pipeline.errors import CandidateError
from edgestill.search.result import SearchResult
from edgestill.search.spaces import make_space
from edgestill.search.tournament import TournamentResult, Trained, play

_JOURNAL = "rungs.jsonl"


def play_tournament(stage: Stage, found: SearchResult) -> TournamentResult:
    """Choose the student by short trainings; a resumed tournament repeats no finished training."""
    config = stage.config.search
    if config.shortlist < 2:
        return TournamentResult(enabled=False, winner=found.winner, search_winner=found.winner)
    trainings = ShortTrainings(stage, "tournament", config.tournament.train_images)
    require_latency = _measured_latency(stage, found, trainings)

    def train(architecture: str, rung: int, epochs: int) -> Trained:
        if rung == 0:
            require_latency(architecture)
        return trainings(architecture, rung, epochs)

    journal = stage.run.journal("tournament", _JOURNAL, stage.inputs)
    result = play(
        found,
        config.shortlist,
        config.tournament,
        train,
        known=journal.entries,
        record=journal.append,
        tick=stage.tick,
    )
    sizes = {"validation_images": len(trainings.splits.validation), "train_images": len(trainings.splits.train)}
    return result.model_copy(update=sizes)


def _measured_latency(stage: Stage, found: SearchResult, trainings: ShortTrainings) -> Callable[[str], None]:
    """Return a check to measure an entrant here and refuse it above the latency limit.

    It does nothing without a limit, for the search's winner, if the target is another machine, or if the search
    measured latencies rather than predicting them.
    """
    config = stage.config.search
    limit, space = config.budget.max_latency_ms, make_space(config.space)
    source = latency_of(stage, trainings.splits.task)

    def require(architecture: str) -> None:
        if source is None or limit is None or source.measure is None or source.is_measured:
            return
        if architecture == found.winner.architecture:  # the search measured it
            return
        measured = source.measure(space.parse(architecture))
        if measured > limit:
            raise CandidateError(f"predicted within max_latency_ms {limit:g} and measured at {measured:.4g} ms")

    return require
