"""The stage that lets short trainings decide between the students that scored best."""

import json

from flows.short_training import ShortTrainings
from flows.stage import Stage
from search.result import SearchResult
from search.tournament import TournamentResult, play

_JOURNAL = "rungs.jsonl"


def play_tournament(stage: Stage, found: SearchResult) -> TournamentResult:
    """The student that goes on; trainings that an interrupted tournament finished are not repeated."""
    config = stage.config.search
    if config.shortlist < 2:
        return TournamentResult(enabled=False, winner=found.winner, search_winner=found.winner)
    trainings = ShortTrainings(stage, "tournament", config.tournament.train_images)
    result = play(
        found,
        config.shortlist,
        config.tournament,
        trainings,
        known=stage.run.journal("tournament", _JOURNAL),
        record=lambda entry: stage.run.append("tournament", _JOURNAL, json.dumps(entry)),
        tick=stage.tick,
    )
    sizes = {"validation_images": len(trainings.splits.validation), "train_images": len(trainings.splits.train)}
    return result.model_copy(update=sizes)
