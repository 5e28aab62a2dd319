"""The profile of a run on its targets: each device's own samples, its verdicts, and all of them together."""

import platform
from collections.abc import Mapping

from edgestill.export.device.document import ProfileDocument, read_profile
from edgestill.export.result import ConvertResult, ProfileResult
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.job import Job, Timed, require_of
from edgestill.export.targets.judged import Judged, Samples, judged, judged_here, merged
from edgestill.export.targets.measure import Device
from edgestill.export.timing import profile
from edgestill.flows.stages.context import StageContext
from edgestill.flows.targets.sending import job_of_files, length_of, measured
from edgestill.pipeline.errors import DataError, TargetError
from edgestill.pipeline.runs.rundir import RunDir

PROFILES = "target-*.json"  # of the targets, in the stage's folder


def profile_on_targets(context: StageContext, files: ConvertResult, architecture: str) -> tuple[ProfileResult, Samples]:
    """Measure the student's files on every target of the run; return the result and the first target's samples.

    A target that was measured before the stage was interrupted is not measured again.

    Raises:
        TargetError: a device cannot be reached, or cannot measure.
        ExportError: nothing ships for the first target.
    """
    parts = []
    for number, target in enumerate(context.config.targets):
        context.tick(number, len(context.config.targets), target.name)
        parts.append(_here(context, files, target) if target.is_here else _there(context, files, target, architecture))
    return merged(parts), parts[0].samples


def require_targets(context: StageContext) -> None:
    """Ask every target of the run, before anything is trained, if it can measure.

    Raises:
        TargetError: one cannot be reached, or lacks something.
    """
    for target in context.config.targets:
        if not (target.is_here or target.is_carried):
            with Device(target, context.say) as device:
                device.facts(context.config.export.opset)


def _here(context: StageContext, files: ConvertResult, target: TargetConfig) -> Judged:
    config = context.config.profile.model_copy(update={"threads": target.threads})
    wanted = {n: m for n, m in files.others.items() if not target.formats or n in target.formats}
    result, timings = profile(
        files.model_copy(update={"others": wanted}),
        context.run.root,
        context.file_examples(),
        config,
        context.config.export.gate,
        context.limits_on(target.name),
    )
    samples: Mapping[str, list[float]] = {name: list(timing.samples_ms) for name, timing in timings.items()}
    return judged_here(result, target, dict(samples), platform.machine())


def _there(context: StageContext, files: ConvertResult, target: TargetConfig, architecture: str) -> Judged:
    task, config = context.splits().task, context.config
    timed = Timed((target.threads,), (1,), config.profile.timing.duration_s, target.repeats, length_of(task))
    job = job_of_files(files, context.run.root, task, target, timed, architecture)
    document = _found(context.run, target, job)
    if document is None:
        document = measured(job, target, config.export.opset, context.say, context.cautions)
        context.run.write("profile", _file(target.name), document.model_dump_json(by_alias=True) + "\n")
    return judged(files, document, target, config.export.gate, context.limits_on(target.name))


def _found(run: RunDir, target: TargetConfig, job: Job) -> ProfileDocument | None:
    """Return the profile of this very job, if an interrupted stage has it already."""
    path = run.path("profile", _file(target.name))
    try:
        return require_of(read_profile(path), job) if path.is_file() else None
    except (DataError, TargetError):
        return None


def _file(name: str) -> str:
    return PROFILES.replace("*", name)
