"""Time all files on validation examples, keep the raw samples, and decide on the files to ship."""

import json
from typing import Any

from edgestill.export.result import ProfileResult
from edgestill.export.timing import profile
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.words import speed_claim
from edgestill.pipeline.figures import listing, milliseconds


class Profile(Stage[ProfileResult]):
    name = "profile"
    result = ProfileResult
    to_change = "search.space or export"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config = context.config
        source = config.search.latency.source
        return results.files, config.profile, config.export.gate, config.search.budget, source

    def work(self, context: StageContext, results: Results) -> ProfileResult:
        result, timings = profile(
            results.files,
            context.run.root,
            context.file_examples(),
            context.config.profile,
            context.config.export.gate,
            context.limits,
        )
        samples = {name: timing.samples_ms for name, timing in timings.items()}
        context.run.write("profile", "samples_ms.json", json.dumps(samples))
        return result

    def sentence(self, result: ProfileResult) -> str:
        ours, theirs = (milliseconds(model.latency.p50_ms) for model in (result.student, result.teacher))
        claim = speed_claim(result.speedup, result.speedup_interval).words
        ship = f"{listing(list(result.shipped))} {'ships' if len(result.shipped) == 1 else 'ship'}"
        return f"{result.default} {ours} against the teacher's {theirs}: {claim}; {ship}"
