"""The stages in their order, which is written here and nowhere else."""

from collections.abc import Iterator
from typing import Any

from edgestill.flows.config.model import RunConfig
from edgestill.flows.stages.data import Data
from edgestill.flows.stages.distill import Distill
from edgestill.flows.stages.export import Export
from edgestill.flows.stages.profile import Profile
from edgestill.flows.stages.prune import Prune
from edgestill.flows.stages.qat import Qat
from edgestill.flows.stages.rank_check import RankCheck
from edgestill.flows.stages.report import Report
from edgestill.flows.stages.search import Search
from edgestill.flows.stages.stage import Results, Stage
from edgestill.flows.stages.teacher import Teacher
from edgestill.flows.stages.tournament import Tournament
from edgestill.flows.stages.tune import Tune
from edgestill.pipeline.runs.rundir import RunDir

STAGES: tuple[Stage[Any], ...] = (
    Data(),
    Teacher(),
    RankCheck(),
    Search(),
    Tournament(),
    Tune(),
    Distill(),
    Prune(),
    Export(),
    Qat(),
    Profile(),
    Report(),
)


def stages_of(config: RunConfig) -> tuple[Stage[Any], ...]:
    """Return the stages of a run of this configuration, in order."""
    return tuple(_taking_part(config))


def stage_names(config: RunConfig) -> tuple[str, ...]:
    return tuple(stage.name for stage in stages_of(config))


def results_of(run: RunDir, config: RunConfig) -> Results:
    """Read the results of a run's finished stages.

    Raises:
        RunDirError: one of them was altered.
    """
    return Results(*(stage.read(run) for stage in stages_of(config) if stage.name in run.manifest.stages))


def sentence(result: Any) -> str:
    """Say a stage's result in one line."""
    (stage,) = (stage for stage in STAGES if stage.result is type(result))
    return stage.sentence(result)


def _taking_part(config: RunConfig) -> Iterator[Stage[Any]]:
    for stage in STAGES:
        if stage.takes_part(config):
            yield stage
            if stage.is_last(config):
                return
