"""The questions that a run asks people, and the place where their labels are kept."""

import dataclasses
from collections.abc import Mapping

from edgestill.distill.drivers.active import Active, Questions
from edgestill.flows.chain import results_of, stage_names
from edgestill.flows.config.loading import config_of
from edgestill.flows.stages.context import DRIVEN, StageContext
from edgestill.flows.stages.distill import Distill
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.errors import RunDirError, command
from edgestill.pipeline.runs.rundir import RunDir


class Desk:
    """The open round of a held run.

    Raises:
        RunDirError: the run asks no person, or nothing now; with the way on.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        context = _context(run)
        self.splits: Splits = context.whole_splits()
        driver = context.driver()
        assert isinstance(driver, Active)
        self._driver = driver
        self.questions = self._open()

    def keep(self, labels: Mapping[str, int | None]) -> int:
        """Keep labels by name, all or none, and return the number of the round's examples still without one."""
        self._driver.keep(self.splits, labels)
        found = self._driver.questions(self.splits)
        return 0 if found is None else len(found.unanswered)

    def _open(self) -> Questions:
        found = self._driver.questions(self.splits)
        if found is None:
            raise _nothing_asked(self.run)
        return found


def _context(run: RunDir) -> StageContext:
    """The surroundings of the run's distillation."""
    config = config_of(run)
    driver = config.distill.driver
    if getattr(driver, "oracle", None) != Active.people:
        raise RunDirError(
            f"{run.root} asks no person for labels: its distill.driver is {driver.name!r}; `edgestill explain "
            "active` tells how a run does"
        )
    done = run.manifest.stages
    if DRIVEN in done:
        raise RunDirError(f"{run.root} has all its labels: its {DRIVEN} stage is finished")
    names = stage_names(config)
    if not all(name in done for name in names[: names.index(DRIVEN)]):
        raise _nothing_asked(run)
    context = StageContext(run, config, lambda *tick: None)
    return dataclasses.replace(context, inputs=Distill().inputs_digest(context, results_of(run, config)))


def _nothing_asked(run: RunDir) -> RunDirError:
    return RunDirError(f"{run.root} has no open question; {command('resume', run.root)} goes on until it asks again")
