"""The stages that turn a trained student into what ships: export, profile, and the report that opens the test split."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.result import DistillResult
from export.bundle import Bundle, BundleModel, TestMetrics, describe_input, write_bundle
from export.formats import FORMATS
from export.gate import Limits, require_a_size_within
from export.parity import check_parity, require_accuracy
from export.profile import evaluate_file, evaluate_run, profile
from export.result import ConvertedModel, ConvertResult, ExportedModel, ProfileResult
from export.sessions import OUTPUT, runner
from export.to_onnx import to_onnx
from flows.formats import answers_of, build_formats
from flows.stage import Stage, distilled_student, trained_teacher
from pipeline.data import Splits, load_test
from pipeline.frozen import Frozen
from pipeline.metrics import Metrics, evaluate
from pipeline.rundir import file_digest
from pipeline.teacher import TeacherResult


class ReportResult(Frozen):
    """The last word: accuracies on the test split, opened here once."""

    teacher: Metrics
    student: Metrics
    shipped: Metrics  # of the default file
    formats: dict[str, Metrics] = {}  # of every file of the student, whether it ships or not
    teacher_file: Metrics | None = None
    bundle: str
    report: str


def export_models(stage: Stage, distilled: DistillResult) -> ConvertResult:
    """Teacher and student as ONNX files, each checked against its network, and the student in every other format."""
    splits = stage.splits()
    task = splits.task
    teacher = _converted(stage, "teacher", trained_teacher(stage, task), splits)
    network = distilled_student(stage, distilled.architecture, task)
    student = _converted(stage, "student", network, splits)
    path = stage.run.root / student.path
    run = runner(path)
    answers = answers_of(run, splits.validation)
    require_accuracy(answers.metrics, distilled.validation, run, splits.validation, task)
    others, absent = build_formats(stage, network, path, splits, answers)
    student = student.model_copy(update={"validation": answers.metrics})
    converted = ConvertResult(teacher=teacher, student=student, others=others, absent=absent)
    require_a_size_within(converted.formats, _limits(stage))
    return converted


def _converted(stage: Stage, name: str, network: nn.Module, splits: Splits) -> ConvertedModel:
    stage.tick(0, 1, name)
    task = splits.task
    data = to_onnx(network, task.input_shape, stage.config.export.opset, task.vocab_size)
    path = stage.run.write("export", f"{name}.onnx", data)
    parts = {"validation": splits.validation, "reference": splits.reference}
    return ConvertedModel(
        path=str(path.relative_to(stage.run.root)),
        sha256=file_digest(path),
        size_bytes=len(data),
        precision="fp32",
        opset=stage.config.export.opset,
        parity=check_parity(network, path, parts, task.input_shape, task.vocab_size),
    )


def _limits(stage: Stage) -> Limits:
    """What the budget says of files; of their latency where this machine is the target."""
    search = stage.config.search
    here = search.latency.source == "measured"
    return Limits(
        max_size_bytes=search.budget.max_size_bytes, max_latency_ms=search.budget.max_latency_ms if here else None
    )


def profile_models(stage: Stage, converted: ConvertResult) -> ProfileResult:
    """Latency of all files on validation examples, with the raw samples beside it, and which of them ship."""
    splits = stage.splits()
    examples = splits.validation.batch(torch.arange(min(64, len(splits.validation)))).inputs
    given = examples.contiguous().numpy()  # as a device has it; the runtime would copy another layout in every call
    result, timings = profile(
        converted,
        stage.run.root,
        given,
        stage.config.profile,
        stage.config.export,
        _limits(stage),
        stage.seed("profile"),
    )
    samples = {name: timing.samples_ms for name, timing in timings.items()}
    stage.run.write("profile", "samples_ms.json", json.dumps(samples))
    return result


def test_and_bundle(
    stage: Stage, teacher: TeacherResult, distilled: DistillResult, profiled: ProfileResult
) -> ReportResult:
    """Open the test split, once; write the bundle. The shipped figures are the shipped file's."""
    device, run = stage.device, stage.run
    task = stage.splits().task
    test = load_test(stage.config.read_data, stage.config.seed, stage.tokenizer())
    formats = {
        name: evaluate_run(FORMATS[name](stage.config.export).open(run.root / model.path, 1), test)
        for name, model in profiled.formats.items()
    }
    scores = {
        "teacher": evaluate(trained_teacher(stage, task).to(device), test, device),
        "student": evaluate(distilled_student(stage, distilled.architecture, task).to(device), test, device),
        "shipped": formats[profiled.default],
    }
    manifest = run.manifest
    bundle = Bundle(
        schema="edgestill.bundle/2",
        name=stage.config.name,
        created=manifest.created,
        task=task,
        input=describe_input(task),
        output={"name": OUTPUT, "dtype": "float32", "shape": ["batch", task.num_classes]},
        architecture=f"{stage.config.search.space.name}:{distilled.architecture}",
        methods=distilled.methods,
        metrics={name: TestMetrics(test_accuracy=score.accuracy, n=score.n) for name, score in scores.items()},
        cost={"teacher": teacher.cost, "student": distilled.cost},
        latency=_latency(profiled),
        models={name: _bundled(model, formats[name]) for name, model in profiled.shipped.items()},
        default=profiled.default,
        budget=stage.config.search.budget.model_dump(mode="json"),
        seeds={"run": stage.config.seed},
        versions=manifest.versions,
        machine=manifest.machine,
        git_commit=manifest.git_commit,
        config_digest=manifest.config_digest,
    )
    files = {name: run.root / path for model in profiled.shipped.values() for name, path in _names(model).items()}
    run.write_folder("bundle", lambda folder: write_bundle(folder, bundle, files, stage.tokenizer()))
    teacher_file = evaluate_file(run.root / profiled.teacher.path, test)
    return ReportResult(**scores, formats=formats, teacher_file=teacher_file, bundle="bundle", report="report.html")


def _names(model: ConvertedModel) -> dict[str, str]:
    """Name in the bundle to path in the run: `model.onnx` is fp32's, others are `model.<format><suffix>`."""
    stem = "student" if model.format == "fp32" else f"student.{model.format}"
    name = "model" if model.format == "fp32" else f"model.{model.format}"
    return {Path(path).name.replace(stem, name, 1): path for path in (model.path, *model.beside)}


def _bundled(model: ExportedModel, tested: Metrics) -> BundleModel:
    return BundleModel(
        file=next(iter(_names(model))),
        format=model.format,
        precision=model.precision,
        runtime=model.runtime,
        bytes=model.size_bytes,
        parity=model.parity,
        validation_accuracy=None if model.validation is None else model.validation.accuracy,
        test_accuracy=tested.accuracy,
        latency=model.latency.summary,
    )


def _latency(profiled: ProfileResult) -> dict[str, Any]:
    latency = profiled.student.latency
    return {
        "runtime": latency.runtime,
        "provider": latency.provider,
        "threads": latency.threads,
        "batch": latency.batch,
        "cpu": profiled.cpu,
        "teacher": profiled.teacher.latency.summary,
        "student": latency.summary,
        "speedup": profiled.speedup,
        "speedup_interval": profiled.speedup_interval,
    }
