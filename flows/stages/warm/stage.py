"""Begin with what earlier runs of the registry found: the fronts of their searches, their trials, their students."""

from typing import Any

from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.registry.earlier import collect
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import DataResult, Results, WarmStartResult
from edgestill.flows.stages.stage import Stage


class WarmStart(Stage[WarmStartResult]):
    name = "warm_start"
    result = WarmStartResult
    is_worth_keeping = False
    looks_outside = True
    to_change = "nightly.warm_start"

    def takes_part(self, config: RunConfig) -> bool:
        return bool(config.nightly.warm_start) and not config.rank_check.only

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config = context.config
        return results.of(DataResult), config.search, config.tune, config.distill

    def work(self, context: StageContext, results: Results) -> WarmStartResult:
        return collect(context.run.root.parent, context.config, results.of(DataResult))

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        return Estimate(0.0, note="reads earlier runs")

    def sentence(self, result: WarmStartResult) -> str:
        if not result.runs:
            return "no earlier run of this space, task and scorer"
        runs = f"{len(result.runs)} earlier run{'s' if len(result.runs) > 1 else ''}"
        return f"{len(result.seeds)} architectures and {len(result.trials)} trials of {runs}, {result.runs[0]} first"
