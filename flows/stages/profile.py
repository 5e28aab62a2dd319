"""Time all files on validation examples, keep the raw samples, and decide on the files to ship."""

import json
import time
from typing import Any

from edgestill.export.gate import Limits
from edgestill.export.generation import speed_of
from edgestill.export.result import ProfileResult
from edgestill.export.timing import profile
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.targets.profiling import profile_on_targets
from edgestill.flows.wording.words import speed_claim
from edgestill.pipeline.figures import listing, milliseconds
from edgestill.pipeline.timing.timing import expected_s, samples_needed


class Profile(Stage[ProfileResult]):
    name = "profile"
    result = ProfileResult
    to_change = "search.space or export"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config = context.config
        source = config.search.latency.source
        targets = [config.targets] if config.targets else []
        return results.files, config.profile, config.export.gate, config.search.budget, source, *targets

    def work(self, context: StageContext, results: Results) -> ProfileResult:
        if context.config.targets:
            student = f"{context.space.name}:{results.shipped_student.architecture}"
            on_target, measured = profile_on_targets(context, results.files, student)
            context.run.write("profile", "samples_ms.json", json.dumps(measured))
            return on_target
        result, timings = profile(
            results.files,
            context.run.root,
            context.file_examples(),
            context.config.profile,
            context.config.export.gate,
            context.limits,
        )
        texts = getattr(context.splits().validation, "texts", None)  # of a language task
        if texts is not None:
            timing, length = context.config.profile.timing, context.splits().task.inputs.length
            file = context.run.root / result.student.path
            speed = speed_of(file, texts, length, context.config.profile.threads, timing)
            result = result.model_copy(update={"speed": speed})
        samples = {name: timing.samples_ms for name, timing in timings.items()}
        context.run.write("profile", "samples_ms.json", json.dumps(samples))
        return result

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        if probes.files is None:
            return Estimate(None, note="no file was made")
        timing = context.config.profile.timing
        brief = timing.model_copy(update={"warmup_s": 0.0, "duration_s": 0.01, "min_samples": samples_needed(50)})
        if any(not target.is_here for target in context.config.targets):
            return Estimate(None, note="measured on " + listing([t.name for t in context.config.targets]))
        start, settings = time.perf_counter(), context.config.profile.model_copy(update={"timing": brief})
        everything = (
            context.run.root,
            context.file_examples(),
            settings,
            context.config.export.gate,
            Limits(),
        )
        found, _ = profile(probes.files, *everything)
        seconds = time.perf_counter() - start
        models = [model for model in (found.teacher, *found.formats.values()) if model is not None]
        seconds += expected_s([model.latency.p50_ms / 1e3 for model in models], timing)
        return Estimate(seconds, note=f"{len(found.formats) + (found.teacher is not None)} files")

    def sentence(self, result: ProfileResult) -> str:
        ours = milliseconds(result.student.latency.p50_ms)
        if result.speed is not None:
            ours = f"{result.speed.tokens_per_second:,.0f} tokens/s, a whole text in {ours}"
        ship = f"{listing(list(result.shipped))} {'ships' if len(result.shipped) == 1 else 'ship'}"
        if result.targets:
            ours = f"{ours} on {result.targets[0].name}"
            ship += "".join(f"; {name}: {default}" for name, default in result.defaults.items())
        if result.teacher is None or result.speedup is None:
            return f"{result.default} {ours}; {ship}"
        theirs, claim = milliseconds(result.teacher.latency.p50_ms), speed_claim(*result.speedup.both).words
        return f"{result.default} {ours} against the teacher's {theirs}: {claim}; {ship}"
