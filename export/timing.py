"""Times the teacher's file and all of the student's in turns, by one stopwatch; then the gate judges them."""

from pathlib import Path

import numpy as np

from edgestill.export.config import GateConfig, ProfileConfig
from edgestill.export.device.facts import load_average
from edgestill.export.formats import FORMATS
from edgestill.export.gate import Limits, beyond_limits, choose_default, judge
from edgestill.export.onnx.sessions import PROVIDER, runner, runtime_name
from edgestill.export.result import Absent, ConvertedModel, ConvertResult, ExportedModel, Latency, ProfileResult, Ratio
from edgestill.export.run import Parted, Run, calls_in_turn
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.timing.latency_statistics import paired_ratio
from edgestill.pipeline.timing.timing import Timing, time_interleaved


def profile(
    models: ConvertResult,
    root: Path,
    inputs: np.ndarray,
    config: ProfileConfig,
    gate: GateConfig,
    limits: Limits,
) -> tuple[ProfileResult, dict[str, Timing]]:
    """Time every file on real examples at batch 1 and judge each format; return the result and the raw samples.

    Args:
        root: the run's folder; the models' paths are relative to it.
        inputs: [N, C, H, W] float32, or token ids [N, T] int64, cycled through.
        limits: the budget's limits on files.

    Raises:
        ExportError: nothing ships.
    """
    load_before = load_average()
    runs, refused = _open_all(models, root, config.threads)
    opened: dict[str, Run] = dict(runs)
    if models.teacher is not None:
        opened = {"teacher": runner(root / models.teacher.path, config.threads), **runs}
    calls = {name: calls_in_turn(run, inputs) for name, run in opened.items()}
    timings = time_interleaved(calls, config.timing)
    formats = {
        name: _exported(models.formats[name], timings[name], config, _parts(run, inputs, config))
        for name, run in runs.items()
    }
    over_fp32 = {name: _ratio(timings["fp32"], timings[name]) for name in runs if name != "fp32"}
    verdicts = judge(formats, over_fp32, (*models.absent, *refused), gate, limits)
    default = choose_default(verdicts, formats, gate)
    result = ProfileResult(
        teacher=None if models.teacher is None else _exported(models.teacher, timings["teacher"], config),
        formats=formats,
        speedups={name: _ratio(timings["teacher"], timings[name]) for name in runs if "teacher" in timings},
        verdicts=verdicts,
        default=default,
        cpu=str(describe_machine()["cpu"]),
        load_before=load_before,
        over_budget=beyond_limits(formats[default], limits),
    )
    return result, timings


def timed_in_turns(
    first: Run, second: Run, inputs: np.ndarray, config: ProfileConfig, confidence: float
) -> tuple[Ratio, tuple[float, float]]:
    """Time two files in turns; return the first's latency over the second's, and both medians in ms.

    Args:
        inputs: as for `profile`.
        confidence: of the ratio's interval.
    """
    timings = time_interleaved(
        {"first": calls_in_turn(first, inputs), "second": calls_in_turn(second, inputs)}, config.timing
    )
    medians = [timing.percentile(50) for timing in timings.values()]
    return _ratio(timings["first"], timings["second"], confidence), (medians[0] or 0.0, medians[1] or 0.0)


def _open_all(models: ConvertResult, root: Path, threads: int) -> tuple[dict[str, Run], list[Absent]]:
    """Open the student's files; return the open ones and the refused ones. Only a refusal of fp32 raises."""
    runs: dict[str, Run] = {}
    refused = []
    for name, model in models.formats.items():
        form = FORMATS[name]
        missing = form.missing()
        if missing is not None:
            refused.append(Absent(format=name, reason=missing, skipped=True))
            continue
        try:
            runs[name] = form.open(root / model.path, threads)
        except ExportError as error:
            if name == "fp32":
                raise
            refused.append(Absent(format=name, reason=str(error), skipped=False))
    return runs, refused


def _ratio(slow: Timing, fast: Timing, confidence: float = 0.95) -> Ratio:
    value, interval = paired_ratio(slow.samples_ms, fast.samples_ms, confidence=confidence)
    return Ratio(value=value, interval=interval)


def _parts(run: Run, inputs: np.ndarray, config: ProfileConfig) -> dict[str, dict[str, float | int]]:
    """Time a device's copies and computation one by one, each until the device is done; empty for other runs."""
    if not isinstance(run, Parted):
        return {}
    calls = {name: call for name, call in run.parts(np.ascontiguousarray(inputs[:1])).items() if name != "call"}
    return {name: timing.summary() for name, timing in time_interleaved(calls, config.timing).items()}


def _exported(
    model: ConvertedModel,
    timing: Timing,
    config: ProfileConfig,
    parts: dict[str, dict[str, float | int]] | None = None,
) -> ExportedModel:
    latency = Latency(
        runtime=runtime_name(model.runtime),
        provider=PROVIDER if FORMATS[model.format].is_cpu_onnx else model.runtime,
        threads=config.threads,
        batch=1,
        summary=timing.summary(),
        parts=parts or {},
    )
    return ExportedModel(**model.model_dump(), latency=latency)
