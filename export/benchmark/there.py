"""Measures a bundle's formats on a target, by the script that every bundle ships."""

import statistics
from collections.abc import Callable, Mapping
from itertools import chain

import numpy as np

from edgestill.export.benchmark.measure import FP32, Settings, agreement_of, answers_here
from edgestill.export.benchmark.result import Benchmark, Row
from edgestill.export.bundle.read import OpenedBundle
from edgestill.export.bundle.schema import PROBES, BundleModel
from edgestill.export.device.answers import OTHERWISE
from edgestill.export.device.document import ColdStart, ProfileDocument, Result
from edgestill.export.formats import FORMATS
from edgestill.export.result import Ratio
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.job import Job, Sent, Timed, make_job
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.timing.latency_statistics import paired_ratio


def benchmark_there(
    opened: OpenedBundle,
    target: TargetConfig,
    inputs: np.ndarray,
    what: str,
    settings: Settings,
    measured: Callable[[Job, TargetConfig], ProfileDocument],
    trusted: bool = False,
) -> Benchmark:
    """Measure the formats that the target's runtimes run.

    No data are sent: the target times random inputs. Agreement is that of the files' answers here, and is left out
    for a file that the target's processor computes otherwise.

    Args:
        inputs: [N, *input_shape], for the agreement.
        what: the inputs, in words.
        measured: measures a job on the target.
        trusted: formats whose files are programs are sent too.

    Raises:
        TargetError: it cannot be reached, or cannot measure.
        ExportError: it runs no format of the bundle.
    """
    bundle = opened.bundle
    left_out = {name: _why_not(target, name, trusted or opened.trusted) for name in bundle.models}
    absent = {name: why for name, why in left_out.items() if why is not None}
    names = [name for name in bundle.models if name not in absent]
    if not names:
        raise ExportError(f"{target.name}: " + "; ".join(f"{name}: {why}" for name, why in absent.items()))
    document = measured(_job(opened, names, settings), target)
    files = {name: document.models[name].file for name in names}
    otherwise = {name for name in names if any(f"{files[name]}: {OTHERWISE}" in note for note in document.warnings)}
    answers = {k: v for k, v in answers_here(opened, names, inputs).items() if k not in otherwise}
    return Benchmark(
        schema="edgestill.benchmark/1",
        bundle=bundle.name,
        digest=opened.manifest.digest,
        target=target.name,
        cpu=document.title,
        threads=settings.threads,
        inputs=f"random inputs timed there, agreement on {what} here",
        rows=tuple(_row(opened, name, document, answers) for name in names),
        left_out=absent,
    )


def _why_not(target: TargetConfig, name: str, trusted: bool) -> str | None:
    """Return a clause on a format that is not measured there, as its answers are needed here too."""
    if not target.runs(name):
        return target.why_not(name)
    form = FORMATS[name]
    if form.is_program and not trusted:
        return f"a file of {form.runtime} is a program; give --trust if the bundle is yours"
    return None if form.is_cpu_onnx else form.missing()


def _job(opened: OpenedBundle, names: list[str], settings: Settings) -> Job:
    bundle = opened.bundle
    models = {name: bundle.models[name] for name in names}
    sent = {name: _sent(opened, model) for name, model in models.items()}
    length = bundle.task.inputs.length or max(bundle.input.get("size", [0]))
    timed = Timed((settings.threads,), (1,), settings.duration_s, settings.repeats, length)
    return make_job(sent, timed, opened.files[PROBES], bundle.architecture)


def _sent(opened: OpenedBundle, model: BundleModel) -> Sent:
    form, stem = FORMATS[model.format], model.file.removesuffix(FORMATS[model.format].suffix)
    beside = tuple((suffix, opened.files[stem + suffix]) for suffix in form.beside)
    return Sent(opened.files[model.file], model.format, model.precision, form.suffix, beside)


def _row(opened: OpenedBundle, name: str, document: ProfileDocument, answers: Mapping[str, np.ndarray]) -> Row:
    model, samples = opened.bundle.models[name], _samples(document, name)
    over = None
    if name != FP32 and FP32 in document.models:
        value, interval = paired_ratio(_samples(document, FP32), samples)
        over = Ratio(value=value, interval=interval)
    percentiles = _result(document, name).summary.percentiles
    cold = document.models[name].cold
    memory = [start.added_rss_bytes for start in cold if start.added_rss_bytes is not None]
    return Row(
        format=name,
        runtime=document.models[name].runtime or document.runtime.name,
        size_bytes=model.bytes,
        accuracy=model.test_accuracy,
        agreement=agreement_of(answers, name),
        p50_ms=percentiles["p50_ms"],
        p90_ms=percentiles.get("p90_ms"),
        over_fp32=over,
        memory_bytes=int(statistics.median(memory)) if memory else None,
        first_answer_ms=statistics.median(map(_first_answer_ms, cold)) if cold else None,
    )


def _first_answer_ms(start: ColdStart) -> float:
    return start.import_ms + start.load_ms + start.first_call_ms


def _result(document: ProfileDocument, name: str) -> Result:
    return next(result for result in document.results if result.model == name)


def _samples(document: ProfileDocument, name: str) -> list[float]:
    return list(chain.from_iterable(process.samples_ms for process in _result(document, name).processes))
