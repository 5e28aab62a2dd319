"""Latency of teacher and student as files in ONNX Runtime, taking turns, by the one stopwatch."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from export.config import ProfileConfig
from export.result import ConvertedModel, ConvertResult, ExportedModel, Latency, ProfileResult
from export.sessions import OUTPUT, PROVIDER, feed, open_session, runner, runtime_name
from pipeline.data import ImageSplit
from pipeline.latency_statistics import ratio_of_medians
from pipeline.metrics import Metrics, metrics_of
from pipeline.provenance import describe_machine
from pipeline.timing import Timing, time_interleaved


def profile(
    models: ConvertResult, root: Path, inputs: np.ndarray, config: ProfileConfig, seed: int
) -> tuple[ProfileResult, dict[str, Timing]]:
    """Time both files on real examples at batch 1; gives the result and the raw samples.

    Args:
        root: the run that the models' paths are relative to.
        inputs: [N, C, H, W] float32, or token ids [N, T] int64, cycled through.
    """
    load_before = os.getloadavg()[0]
    converted = {"teacher": models.teacher, "student": models.student}
    calls = {name: _call(root / model.path, inputs, config.threads) for name, model in converted.items()}
    timings = time_interleaved(calls, config.timing)
    exported = {name: _exported(model, timings[name], config) for name, model in converted.items()}
    speedup, interval = ratio_of_medians(timings["teacher"].samples_ms, timings["student"].samples_ms, seed)
    result = ProfileResult(
        teacher=exported["teacher"],
        student=exported["student"],
        speedup=speedup,
        speedup_interval=interval,
        cpu=str(describe_machine()["cpu"]),
        load_before=load_before,
    )
    return result, timings


def evaluate_file(path: Path, split: ImageSplit) -> Metrics:
    """Metrics of an ONNX file on a split."""
    run = runner(path)
    return metrics_of((torch.from_numpy(run(b.inputs.numpy())), b.targets) for b in split.batches(256))


def _call(path: Path, inputs: np.ndarray, threads: int) -> Callable[[], object]:
    session = open_session(path, threads)
    singles = [feed(np.ascontiguousarray(single[None]), session) for single in inputs]
    position = 0

    def call() -> object:
        nonlocal position
        position = (position + 1) % len(singles)
        return session.run([OUTPUT], singles[position])

    return call


def _exported(model: ConvertedModel, timing: Timing, config: ProfileConfig) -> ExportedModel:
    latency = Latency(
        runtime=runtime_name(), provider=PROVIDER, threads=config.threads, batch=1, summary=timing.summary()
    )
    return ExportedModel(**model.model_dump(), latency=latency)
