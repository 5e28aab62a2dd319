"""Latency of the teacher's file and all of the student's, taking turns, by the one stopwatch; then the gate."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from export.config import ExportConfig, ProfileConfig
from export.formats import FORMATS, Parted, Run
from export.gate import Limits, beyond_limits, choose_default, judge
from export.result import Absent, ConvertedModel, ConvertResult, ExportedModel, Latency, ProfileResult, Ratio
from export.sessions import PROVIDER, runner, runtime_name
from pipeline.data import ImageSplit
from pipeline.errors import ExportError
from pipeline.metrics import Metrics, metrics_of
from pipeline.provenance import describe_machine
from pipeline.timing import Timing, time_interleaved

_RESAMPLES = 2000


def profile(
    models: ConvertResult,
    root: Path,
    inputs: np.ndarray,
    config: ProfileConfig,
    export: ExportConfig,
    limits: Limits,
    seed: int,
) -> tuple[ProfileResult, dict[str, Timing]]:
    """Time every file on real examples at batch 1 and say which ship; gives the result and the raw samples.

    Args:
        root: the run that the models' paths are relative to.
        inputs: [N, C, H, W] float32, or token ids [N, T] int64, cycled through.
        limits: what the budget says of files.

    Raises:
        ExportError: nothing ships.
    """
    load_before = os.getloadavg()[0]
    runs, refused = _open_all(models, root, config.threads, export)
    calls = {name: _call(run, inputs) for name, run in {"teacher": runner(root / models.teacher.path), **runs}.items()}
    timings = time_interleaved(calls, config.timing)
    teacher = timings["teacher"]
    formats = {
        name: _exported(models.formats[name], timings[name], config, _parts(run, inputs, config))
        for name, run in runs.items()
    }
    over_fp32 = {name: _ratio(timings["fp32"], timings[name], seed) for name in runs if name != "fp32"}
    verdicts = judge(formats, over_fp32, (*models.absent, *refused), export.gate, limits)
    default = choose_default(verdicts, formats, export.gate)
    result = ProfileResult(
        teacher=_exported(models.teacher, teacher, config),
        formats=formats,
        speedups={name: _ratio(teacher, timings[name], seed) for name in runs},
        verdicts=verdicts,
        default=default,
        cpu=str(describe_machine()["cpu"]),
        load_before=load_before,
        over_budget=beyond_limits(formats[default], limits),
    )
    return result, timings


def ratio_of_medians(
    slow: tuple[float, ...], fast: tuple[float, ...], seed: int, turn: int = 10
) -> tuple[float, tuple[float, float]]:
    """The ratio of typical times (the median turn's median) and its 95 % interval, by a bootstrap over paired turns.

    The interval holds what varied within this measurement, not between processes or days.
    """
    turns = min(len(slow), len(fast)) // turn
    pairs = np.stack([np.asarray(s[: turns * turn]).reshape(turns, turn) for s in (slow, fast)])
    medians = np.median(pairs, axis=2)  # a median a turn keeps the bootstrap honest about slow moments
    drawn = np.random.default_rng(seed).integers(0, turns, (_RESAMPLES, turns))
    typical = np.median(medians, axis=1)
    ratios = np.median(medians[0][drawn], axis=1) / np.median(medians[1][drawn], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(typical[0] / typical[1]), (float(low), float(high))


def evaluate_file(path: Path, split: ImageSplit) -> Metrics:
    """Metrics of an ONNX file on a split."""
    return evaluate_run(runner(path), split)


def evaluate_run(run: Run, split: ImageSplit) -> Metrics:
    """Metrics of whatever gives logits, on a split."""
    return metrics_of((torch.from_numpy(run(b.inputs.numpy())), b.targets) for b in split.batches(256))


def _open_all(
    models: ConvertResult, root: Path, threads: int, export: ExportConfig
) -> tuple[dict[str, Run], list[Absent]]:
    """The student's files, opened; one that does not open is no reason to end."""
    runs: dict[str, Run] = {}
    refused = []
    for name, model in models.formats.items():
        form = FORMATS[name](export)
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


def _call(run: Run, inputs: np.ndarray) -> Callable[[], object]:
    singles = [np.ascontiguousarray(single[None]) for single in inputs]
    position = 0

    def call() -> object:
        nonlocal position
        position = (position + 1) % len(singles)
        return run(singles[position])

    return call


def _ratio(slow: Timing, fast: Timing, seed: int) -> Ratio:
    value, interval = ratio_of_medians(slow.samples_ms, fast.samples_ms, seed)
    return Ratio(value=value, interval=interval)


def _parts(run: Run, inputs: np.ndarray, config: ProfileConfig) -> dict[str, dict[str, float | int]]:
    """What copies and computation take on a device, each up to the moment when the device is done."""
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
    here = model.runtime == "onnxruntime"
    latency = Latency(
        runtime=runtime_name() if here else model.runtime,
        provider=PROVIDER if here else model.runtime,
        threads=config.threads,
        batch=1,
        summary=timing.summary(),
        parts=parts or {},
    )
    return ExportedModel(**model.model_dump(), latency=latency)
