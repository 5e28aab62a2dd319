"""Read and split the data; refuse a hopeless budget or export before anything is trained."""

from typing import Any

from edgestill.distill.recipe import make_recipe
from edgestill.flows.latency import keep_latency_model, latency_of
from edgestill.flows.stages.context import TOKENIZER, StageContext
from edgestill.flows.stages.heads import telling_of_heads, what_ships
from edgestill.flows.stages.rehearsal import rehearse_export
from edgestill.flows.stages.results import DataResult, Results
from edgestill.flows.stages.stage import Stage
from edgestill.pipeline.networks.network import uninitialised
from edgestill.pipeline.plugins import cautions
from edgestill.pipeline.teachers import build_teacher
from edgestill.search.search import require_feasible


class Data(Stage[DataResult]):
    name = "data"
    result = DataResult
    to_change = "data"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        return context.config.seed, context.config.read_data

    def work(self, context: StageContext, results: Results) -> DataResult:
        config = context.config
        splits = context.splits()
        context.cautions.extend((*splits.cautions, *cautions()))
        make_recipe(config.distill.methods).check(splits.task, splits.train)
        if splits.coder is not None:
            context.run.write("data", TOKENIZER, splits.coder.json)
        with uninitialised():
            build_teacher(config.teacher, splits.task)  # refuses a teacher for other inputs
        keep_latency_model(context)
        latency = latency_of(context, splits.task)
        with telling_of_heads(config.distill):
            require_feasible(config.search, splits.task, context.seed("search"), latency, what_ships(config.distill))
        rehearse_export(context, splits)
        return DataResult(task=splits.task, sizes=splits.sizes, digests=splits.digests)

    def sentence(self, result: DataResult) -> str:
        sizes = ", ".join(f"{count:,} {name}" for name, count in result.sizes.items())
        return f"{result.task.num_classes} classes of {result.task.inputs.described()}: {sizes}"
