"""Contract of a stage: all that is true of it alone, for the runner, the terminal, `show`, the report and Prefect."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic

from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import R, Results
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.runs.rundir import RunDir


class Stage(ABC, Generic[R]):
    """One step of a run. Its result is frozen, is written as JSON, and is not computed again for the same inputs."""

    name: ClassVar[str]  # of its folder in the run
    result: type[R]
    beside: ClassVar[str | None] = None  # a folder of results outside its own, which may be moved away
    is_worth_keeping: ClassVar[bool] = True  # False if a run that fails with nothing but it done is not kept
    looks_outside: ClassVar[bool] = False  # True if it reads things that its inputs do not name; nights do it anew
    to_change: ClassVar[str] = "search.space or distill"  # settings for another run, should its process die again

    def takes_part(self, config: RunConfig) -> bool:
        """True if a run of this configuration has the stage."""
        return True

    def is_last(self, config: RunConfig) -> bool:
        """True if a run of this configuration ends with the stage."""
        return False

    @abstractmethod
    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        """Return the results, settings and digests of files that decide if the stage is done already."""

    def inputs_digest(self, context: StageContext, results: Results) -> str:
        """Return the digest that tells if the stage is done already."""
        return digest(self.name, *self.inputs(context.settled(results), results))

    @abstractmethod
    def work(self, context: StageContext, results: Results) -> R:
        """Compute the result and write the stage's files; after a kill, go on from what is there."""

    @abstractmethod
    def sentence(self, result: R) -> str:
        """Say the result in one line, for the terminal, the logs and the report."""

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        """Estimate time and disk from measurements on this machine, made here; a stage without it counts as unknown."""
        return Estimate(None, note="not measured")

    def read(self, run: RunDir) -> R:
        """Read the result of a finished stage back; its folder `beside` may have been moved away.

        Raises:
            RunDirError: the stage is not finished, or was altered.
        """
        return run.read(self.name, self.result, movable=self.beside)
