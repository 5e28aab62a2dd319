"""Estimate a run on this machine: is the budget reachable, and how long, large and hungry is each stage.

The data stage's checks are done as in a run, so that a mistake is told here. All else is measured for seconds in a
folder that is removed.
"""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from edgestill.export.formats import FORMATS
from edgestill.flows.chain import stages_of
from edgestill.flows.config.cautions import cautions_of
from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.peak_memory import begin_peak, peak_bytes
from edgestill.flows.plan.probes import Probes
from edgestill.flows.plan.reach import reach_of
from edgestill.flows.progress import Progress, Silent
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import Results
from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.device import select_device
from edgestill.pipeline.figures import duration
from edgestill.pipeline.runs.rundir import RunDir


class Planned(NamedTuple):
    """A stage's estimate, with the peak of memory while it was made."""

    stage: str
    estimate: Estimate
    memory_bytes: int | None


class Plan(NamedTuple):
    reach: str
    stages: tuple[Planned, ...]
    lacking: tuple[str, ...]  # configured formats that cannot be made here, with the reason
    cautions: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(planned.estimate.seconds or 0.0 for planned in self.stages)


def make_plan(config: RunConfig, progress: Progress | None = None) -> Plan:
    """Estimate each stage of a run of this configuration.

    Raises:
        UserError: as the run itself would, before anything is trained.
    """
    shown = progress or Silent()
    select_device(config.device)
    stages, planned = stages_of(config), list[Planned]()
    with tempfile.TemporaryDirectory() as folder, RunDir.create(Path(folder), "plan", config.seed, config) as run:
        context = StageContext(run, config, shown.tick, shown.say)
        try:
            probes, reach = _begun(context, shown, len(stages))
            for place, stage in enumerate(stages, 1):
                shown.begin(stage.name, place, len(stages))
                start = time.perf_counter()
                begin_peak()
                estimate = stage.estimate(context, probes)
                planned.append(Planned(stage.name, estimate, peak_bytes()))
                shown.end(stage.name, time.perf_counter() - start, _told(estimate), False)
        finally:
            shown.close()
    lacking = [f"{name}: {why}" for name in config.export.formats if (why := FORMATS[name].missing())]
    return Plan(reach, tuple(planned), tuple(lacking), tuple(dict.fromkeys((*cautions_of(config), *context.cautions))))


def _begun(context: StageContext, shown: Progress, count: int) -> tuple[Probes, str]:
    """Do the data stage's work, and draw students."""
    [data, *_] = stages_of(context.config)
    shown.begin(data.name, 1, count)
    data.work(context, Results())
    reach = reach_of(context, shown.tick)
    return Probes(context, reach.architectures), reach.sentence


def _told(estimate: Estimate) -> str:
    return "not estimated" if estimate.seconds is None else f"estimated at {duration(estimate.seconds)}"


def cached_words() -> str:
    """Say what stays for later runs."""
    return f"kept for later runs in {cache_folder()}: the rehearsal of the export, and the scale of scores"
