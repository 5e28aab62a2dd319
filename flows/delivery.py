"""The stages that turn a trained student into what ships: export, profile, and the report that opens the test split."""

import json
from typing import Any

import torch

from distill.result import DistillResult
from export.bundle import Bundle, TestMetrics, describe_input, write_bundle
from export.parity import check_parity
from export.profile import evaluate_file, profile
from export.result import ConvertedModel, ConvertResult, ProfileResult
from export.sessions import OUTPUT
from export.to_onnx import to_onnx
from flows.stage import Stage, distilled_student, trained_teacher
from pipeline.data import load_test
from pipeline.errors import ExportError
from pipeline.frozen import Frozen
from pipeline.metrics import Metrics, evaluate
from pipeline.rundir import file_digest
from pipeline.teacher import TeacherResult
from search.result import Candidate


class ReportResult(Frozen):
    """The last word: accuracies on the test split, opened here once."""

    teacher: Metrics
    student: Metrics
    shipped: Metrics
    bundle: str
    report: str


def export_models(stage: Stage, student: Candidate) -> ConvertResult:
    """Student and teacher as ONNX files, each checked against its network."""
    splits = stage.splits()
    task = splits.task
    parts = {"validation": splits.validation, "reference": splits.reference}
    networks = {
        "student": distilled_student(stage, student.architecture, task),
        "teacher": trained_teacher(stage, task),
    }
    models = {}
    for done, (name, network) in enumerate(networks.items()):
        stage.tick(done, len(networks), name)
        data = to_onnx(network, task.input_shape, stage.config.export.opset, task.vocab_size)
        limit = stage.config.search.budget.max_size_bytes
        if name == "student" and limit is not None and len(data) > limit:
            raise ExportError(f"the student's file has {len(data):,} bytes, above max_size_bytes {limit:,}")
        path = stage.run.write("export", f"{name}.onnx", data)
        models[name] = ConvertedModel(
            path=str(path.relative_to(stage.run.root)),
            sha256=file_digest(path),
            size_bytes=len(data),
            precision="fp32",
            opset=stage.config.export.opset,
            parity=check_parity(network, path, parts, task.input_shape, task.vocab_size),
        )
    return ConvertResult(**models)


def profile_models(stage: Stage, converted: ConvertResult) -> ProfileResult:
    """Latency of both files on validation examples, with the raw samples beside it."""
    splits = stage.splits()
    examples = splits.validation.batch(torch.arange(min(64, len(splits.validation)))).inputs
    given = examples.contiguous().numpy()  # as a device has it; the runtime would copy another layout in every call
    result, timings = profile(converted, stage.run.root, given, stage.config.profile, stage.seed("profile"))
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
    student = profiled.student
    scores = {
        "teacher": evaluate(trained_teacher(stage, task).to(device), test, device),
        "student": evaluate(distilled_student(stage, distilled.architecture, task).to(device), test, device),
        "shipped": evaluate_file(run.root / student.path, test),
    }
    manifest = run.manifest
    bundle = Bundle(
        schema="edgestill.bundle/1",
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
        parity=student.parity.model_dump(mode="json"),
        budget=stage.config.search.budget.model_dump(mode="json"),
        seeds={"run": stage.config.seed},
        versions=manifest.versions,
        machine=manifest.machine,
        git_commit=manifest.git_commit,
        config_digest=manifest.config_digest,
    )
    model, tokenizer = run.root / student.path, stage.tokenizer()
    run.write_folder("bundle", lambda folder: write_bundle(folder, bundle, model, student, tokenizer))
    return ReportResult(**scores, bundle="bundle", report="report.html")


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
