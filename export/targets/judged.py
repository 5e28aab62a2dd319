"""The gate's verdicts by a target's own samples, and the result of a profile on several targets."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from edgestill.export.config import GateConfig
from edgestill.export.device.answers import OTHERWISE
from edgestill.export.device.document import ProfileDocument, Result
from edgestill.export.gate import Limits, beyond_limits, choose_default, judge
from edgestill.export.result import (
    Absent,
    ConvertedModel,
    ConvertResult,
    ExportedModel,
    Latency,
    OnTarget,
    ProfileResult,
    Ratio,
    Verdict,
)
from edgestill.export.targets.config import TargetConfig
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.timing.latency_statistics import paired_ratio

TEACHER = "teacher"
Samples = dict[str, list[float]]  # ms, by file


class Judged(NamedTuple):
    """Outcome for one target; `result` is None where nothing ships for it."""

    target: OnTarget
    formats: dict[str, ExportedModel]
    result: ProfileResult | None
    samples: Samples


def judged(
    models: ConvertResult, document: ProfileDocument, target: TargetConfig, gate: GateConfig, limits: Limits
) -> Judged:
    """Judge the student's files by a profile from the target, as `edgestill.export.timing.profile` does here."""
    samples = {name: _samples(_result(document, name)) for name in document.models}
    measured = {name: model for name, model in models.formats.items() if name in samples}
    formats = {name: _exported(model, document, name) for name, model in measured.items()}
    ratios = {name: _ratio(samples["fp32"], samples[name]) for name in formats if name != "fp32"}
    absent = (*models.absent, *_not_there(models, target))
    verdicts: tuple[Verdict, ...] = ()
    default: str | None = None
    why_none = ""
    try:
        verdicts = _as_it_answers(judge(formats, ratios, absent, gate, limits), document)
        default = choose_default(verdicts, formats, gate)
    except ExportError as error:
        why_none = str(error)
    speedups = {name: _ratio(samples[TEACHER], samples[name]) for name in formats if TEACHER in samples}
    there = OnTarget(
        name=target.name,
        device=document.title,
        architecture=document.device.architecture,
        runtime=document.runtime.name,
        threads=target.threads,
        latencies={name: model.latency for name, model in formats.items()},
        verdicts=verdicts,
        default=default,
        why_none=why_none,
        speedup=speedups.get(default or ""),
        notes=document.warnings,
    )
    if default is None:
        return Judged(there, formats, None, samples)
    teacher = models.teacher
    result = ProfileResult(
        teacher=None if teacher is None or TEACHER not in samples else _exported(teacher, document, TEACHER),
        formats=formats,
        speedups=speedups,
        verdicts=verdicts,
        default=default,
        cpu=document.title,
        load_before=document.loads[0].get("average_before"),
        over_budget=beyond_limits(formats[default], limits),
    )
    return Judged(there, formats, result, samples)


def judged_here(result: ProfileResult, target: TargetConfig, samples: Samples, architecture: str) -> Judged:
    """Give this machine's own result the form of a target's."""
    there = OnTarget(
        name=target.name,
        device=result.cpu,
        architecture=architecture,
        runtime=result.student.latency.runtime,
        threads=target.threads,
        latencies={name: model.latency for name, model in result.formats.items()},
        verdicts=result.verdicts,
        default=result.default,
        speedup=result.speedup,
    )
    return Judged(there, result.formats, result, samples)


def merged(found: Sequence[Judged]) -> ProfileResult:
    """Merge the targets' parts: the first one's figures, and every file that ships for any of them.

    Raises:
        ExportError: nothing ships for the first target.
    """
    first = found[0]
    if first.result is None:
        raise ExportError(f"{first.target.name}: {first.target.why_none}")
    formats, verdicts = dict(first.formats), []
    for verdict in first.result.verdicts:
        others = _ships_elsewhere(verdict.format, found[1:])
        if verdict.shipped or not others:
            verdicts.append(verdict)
            continue
        for other in others:
            formats.setdefault(verdict.format, other.formats[verdict.format])
        names = ", ".join(other.target.name for other in others)
        reason = f"it is worth it on {names}; on {first.target.name} {verdict.word}: {verdict.reason}"
        verdicts.append(verdict.model_copy(update={"shipped": True, "skipped": False, "reason": reason}))
    targets = tuple(part.target for part in found)
    return first.result.model_copy(update={"formats": formats, "verdicts": tuple(verdicts), "targets": targets})


def _ships_elsewhere(name: str, others: Sequence[Judged]) -> list[Judged]:
    return [part for part in others if any(v.format == name and v.shipped for v in part.target.verdicts)]


def _not_there(models: ConvertResult, target: TargetConfig) -> list[Absent]:
    """List the files that are not measured on the target, with the reason."""
    return [
        Absent(
            format=name,
            reason=f"not measured on {target.name}: {target.why_not(name)}",
            skipped=True,
        )
        for name in models.formats
        if not target.runs(name)
    ]


def _as_it_answers(verdicts: Sequence[Verdict], document: ProfileDocument) -> tuple[Verdict, ...]:
    """Reject INT8 where the device's processor computes it otherwise than it was judged by.

    Raises:
        ExportError: nothing ships any more.
    """
    found = []
    for verdict in verdicts:
        model = document.models.get(verdict.format)
        file = None if model is None else model.file
        notes = [note for note in document.warnings if note.startswith(f"{file}: {OTHERWISE}")]
        if verdict.shipped and notes:
            verdict = verdict.model_copy(update={"shipped": False, "reason": notes[0].rstrip(".")})
        found.append(verdict)
    if not any(verdict.shipped for verdict in found):
        raise ExportError("nothing ships: " + "; ".join(verdict.sentence for verdict in found))
    return tuple(found)


def _result(document: ProfileDocument, name: str) -> Result:
    return next(result for result in document.results if result.model == name)


def _samples(result: Result) -> list[float]:
    return list(chain.from_iterable(process.samples_ms for process in result.processes))


def _ratio(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    value, interval = paired_ratio(slow, fast)
    return Ratio(value=value, interval=interval)


def _exported(model: ConvertedModel, document: ProfileDocument, name: str) -> ExportedModel:
    found = _result(document, name)
    summary: Mapping[str, float | int] = {"n": found.summary.n, **found.summary.percentiles}
    other = document.models[name].runtime
    latency = Latency(
        runtime=other or document.runtime.name,
        provider=model.runtime if other else document.runtime.provider,
        threads=found.threads,
        batch=found.batch,
        summary=dict(summary),
    )
    return ExportedModel(**model.model_dump(), latency=latency)
