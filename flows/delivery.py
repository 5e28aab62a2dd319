"""The stages to export a trained student to files, check and time them; `flows/bundling.py` ships them."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from edgestill.distill.result import DistillResult
from edgestill.export.gate import Limits, require_a_size_within
from edgestill.export.onnx.interface import with_interface
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import check_parity, require_accuracy
from edgestill.export.profile import profile
from edgestill.export.result import ConvertedModel, ConvertResult, ProfileResult
from edgestill.flows.formats import answers_of, build_formats
from edgestill.flows.stage import Stage, distilled_student, trained_teacher
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.runs.rundir import file_digest
from edgestill.pipeline.training.metrics import Metrics

BUNDLE: Literal["bundle"] = "bundle"  # the run's folder for the shipped files
PAGE: Literal["report.html"] = "report.html"


class ReportResult(Frozen):
    """The last word: accuracies on the test split, opened once, for them."""

    teacher: Metrics
    student: Metrics
    shipped: Metrics  # of the default file
    formats: dict[str, Metrics] = {}  # of every file of the student, shipped or not
    teacher_file: Metrics | None = None
    lost: int | None = None  # test examples right by the teacher alone; None: a run of an older version
    gained: int | None = None  # test examples right by the default file alone
    bundle: Literal["bundle"] = BUNDLE  # fixed names: a run from elsewhere must not choose them
    report: Literal["report.html"] = PAGE
    digest: str = ""  # of the bundle; whoever keeps it can detect any later change


def export_models(stage: Stage, distilled: DistillResult) -> ConvertResult:
    """Export teacher and student to ONNX, each checked against its network, and the student to the other formats."""
    splits = stage.splits()
    task = splits.task
    teacher, _ = _converted(stage, "teacher", trained_teacher(stage, task), splits)
    network = distilled_student(stage, distilled.architecture, task)
    student, raw = _converted(stage, "student", network, splits)
    plain = runner(raw)
    answers = answers_of(plain, splits.validation)
    require_accuracy(answers.metrics, distilled.validation, plain, splits.validation, task)
    path = stage.run.root / student.path
    if path != raw:
        answers = answers_of(runner(path), splits.validation)
    others, absent = build_formats(stage, network, raw, splits, answers, fp32=path)
    student = student.model_copy(update={"validation": answers.metrics})
    converted = ConvertResult(teacher=teacher, student=student, others=others, absent=absent)
    require_a_size_within(converted.formats, _limits(stage))
    return converted


def _converted(stage: Stage, name: str, network: nn.Module, splits: Splits) -> tuple[ConvertedModel, Path]:
    """Export a network to fp32; return the file's record, and the raw file without interface, checked for parity."""
    stage.tick(0, 1, name)
    task, config = splits.task, stage.config.export
    data = to_onnx(network, task.inputs, config.opset)
    raw = path = stage.run.write("export", f"{name}.onnx" if config.interface == "raw" else f"{name}.raw.onnx", data)
    parts = {"validation": splits.validation, "reference": splits.reference}
    parity = check_parity(network, raw, parts, task.inputs)
    if config.interface != "raw":
        data = with_interface(data, config.interface, _examples(splits))
        path = stage.run.write("export", f"{name}.onnx", data)
    model = ConvertedModel(
        path=str(path.relative_to(stage.run.root)),
        sha256=file_digest(path),
        size_bytes=len(data),
        precision="fp32",
        opset=config.opset,
        parity=parity,
    )
    return model, raw


def _examples(splits: Splits) -> np.ndarray:
    """Up to 64 validation examples, contiguous as on a device: a runtime would copy another layout in every call."""
    some = splits.validation.batch(torch.arange(min(64, len(splits.validation))))
    return np.ascontiguousarray(some.inputs.numpy())


def _limits(stage: Stage) -> Limits:
    """The budget's limits on files; on their latency only if this machine is the target."""
    search = stage.config.search
    here = search.latency.source == "measured"
    return Limits(
        max_size_bytes=search.budget.max_size_bytes, max_latency_ms=search.budget.max_latency_ms if here else None
    )


def profile_models(stage: Stage, converted: ConvertResult) -> ProfileResult:
    """Time all files on validation examples, keep the raw samples, and decide on the files to ship."""
    result, timings = profile(
        converted,
        stage.run.root,
        _examples(stage.splits()),
        stage.config.profile,
        stage.config.export,
        _limits(stage),
    )
    samples = {name: timing.samples_ms for name, timing in timings.items()}
    stage.run.write("profile", "samples_ms.json", json.dumps(samples))
    return result
