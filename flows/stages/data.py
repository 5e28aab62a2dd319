"""Read and split the data; refuse a hopeless budget or export before anything is trained."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from edgestill.distill.needs import unmet
from edgestill.distill.recipe import make_recipe
from edgestill.flows.config.cautions import cautions_of
from edgestill.flows.latency import keep_latency_model, latency_of, require_reachable_latency
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import TOKENIZER, StageContext
from edgestill.flows.stages.heads import telling_of_heads, what_ships
from edgestill.flows.stages.rehearsal import rehearse_export
from edgestill.flows.stages.results import DataResult, Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.targets.profiling import require_targets
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import uninitialised
from edgestill.pipeline.plugins import cautions
from edgestill.pipeline.teachers import build_teacher
from edgestill.pipeline.teachers.teacher import PARTS
from edgestill.pipeline.training.balance import imbalance
from edgestill.search.search import require_feasible


class Data(Stage[DataResult]):
    name = "data"
    result = DataResult
    to_change = "data"
    is_worth_keeping = False
    looks_outside = True

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        model = context.config.search.latency.model  # the run's copy of it is made here
        hides = context.config.distill.driver.hides
        return context.config.seed, context.config.read_data, *([] if model is None else [model]), *hides

    def work(self, context: StageContext, results: Results) -> DataResult:
        config = context.config
        splits = context.looked_at_splits()
        assert splits.look is not None
        _caution(context, [*splits.cautions, *(f.sentence for f in splits.look.findings if f.is_caution)])
        if config.distill.training.balance == "none" and splits.task.inputs.has_classes:
            _caution(context, [imbalance(splits.look.counts["train"], splits.task.labels)])
        context.cautions.extend((*cautions_of(config), *cautions()))
        recipe = make_recipe(config.distill.methods)
        recipe.check(splits.task, splits.train)
        if splits.coder is not None:
            context.run.write("data", TOKENIZER, splits.coder.json)
        with uninitialised():
            teacher = build_teacher(config.teacher, splits.task)  # refuses a teacher for other inputs
        problems = unmet(recipe.methods, getattr(teacher, "gives", PARTS), "the teacher")
        if problems:
            raise ConfigError(problems)
        context.cautions.extend(getattr(teacher, "cautions", ()))
        context.require_start(splits.task)
        require_targets(context)
        keep_latency_model(context)
        latency = latency_of(context, splits.task)
        with telling_of_heads(config.distill):
            ships = what_ships(config.distill)
            require_feasible(config.search, splits.task, context.seed("search"), latency, ships)
            require_reachable_latency(context, splits.task, ships)
        rehearse_export(context, splits)
        return DataResult(
            task=splits.task, sizes=splits.sizes, digests=splits.digests, look=splits.look, dropped=splits.dropped
        )

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        again, start = dataclasses.replace(context, loaded=[], cautions=[], say=lambda line: None), time.perf_counter()
        self.work(again, Results())
        return Estimate(time.perf_counter() - start, note="the rehearsal of the export is kept in the cache")

    def sentence(self, result: DataResult) -> str:
        sizes = ", ".join(f"{count:,} {name}" for name, count in result.sizes.items())
        read = f"{sum(result.sizes.values()) + result.dropped:,} read"
        left_out = f", {result.dropped:,} with an empty cell left out" if result.dropped else ""
        most = result.majority("validation")
        about = result.task.inputs
        largest = "largest class" if about.has_classes else f"most frequent {about.unit}"
        beside = "" if most is None else f"; the {largest} has {most:.2%} of validation"
        named = "" if about.has_classes else f"; an accuracy below is the {about.accuracy} in answers"
        return (
            f"{result.task.num_classes} {about.units} of {about.described()}; {read}{left_out}: {sizes}{beside}{named}"
        )


def _caution(context: StageContext, sentences: Sequence[str]) -> None:
    for sentence in filter(None, sentences):
        context.cautions.append(sentence)
        context.say(f"caution: {sentence}")
