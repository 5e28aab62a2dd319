"""The stages in their order, which is written here and nowhere else."""

from collections.abc import Iterable, Iterator
from typing import Any

from edgestill.flows.config.model import RunConfig
from edgestill.flows.stages.baselines.stage import Baselines
from edgestill.flows.stages.data import Data
from edgestill.flows.stages.distill import Distill
from edgestill.flows.stages.export import Export
from edgestill.flows.stages.profile import Profile
from edgestill.flows.stages.prune import Prune
from edgestill.flows.stages.qat import Qat
from edgestill.flows.stages.rank_check import RankCheck
from edgestill.flows.stages.recipe.stage import Recipe
from edgestill.flows.stages.report import Report
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.search import Search
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.teacher import Teacher
from edgestill.flows.stages.tournament import Tournament
from edgestill.flows.stages.tune import Tune
from edgestill.flows.stages.warm.stage import WarmStart
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.runs.rundir import RunDir

STAGES: tuple[Stage[Any], ...] = (
    Data(),
    Teacher(),
    RankCheck(),
    WarmStart(),
    Search(),
    Tournament(),
    Recipe(),
    Tune(),
    Distill(),
    Prune(),
    Export(),
    Qat(),
    Profile(),
    Baselines(),
    Report(),
)

LAST = {"search": "tournament", "distill": "prune", "export": "qat", "profile": "profile"}  # part of a run: its end


def stages_of(config: RunConfig, last: str | None = None) -> tuple[Stage[Any], ...]:
    """Return the stages of a run of this configuration, in order.

    Args:
        last: name of a stage of the chain; those after it are left out.
    """
    names = [stage.name for stage in STAGES]
    end = len(names) if last is None else names.index(last) + 1
    return tuple(stage for stage in _taking_part(config) if stage.name in names[:end])


def stage_names(config: RunConfig) -> tuple[str, ...]:
    return tuple(stage.name for stage in stages_of(config))


def results_of(run: RunDir, config: RunConfig) -> Results:
    """Read the results of a run's finished stages.

    Raises:
        RunDirError: one of them was altered.
    """
    return collected(stage.read(run) for stage in stages_of(config) if stage.name in run.manifest.stages)


def collected(found: Iterable[Frozen]) -> Results:
    """Collect results of stages."""
    results = Results()
    for result in found:
        stage = _stage_of(result)
        results.add(stage.name, result, stage.sentence(result))
    return results


def sentence(result: Frozen) -> str:
    """Say a stage's result in one line."""
    return _stage_of(result).sentence(result)


def _stage_of(result: Frozen) -> Stage[Any]:
    return next(stage for stage in STAGES if stage.result is type(result))


def _taking_part(config: RunConfig) -> Iterator[Stage[Any]]:
    for stage in STAGES:
        if stage.takes_part(config):
            yield stage
            if stage.is_last(config):
                return
