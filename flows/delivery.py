"""The stages that turn a trained student into files that are checked and timed; `flows/bundling.py` ships them."""

import json

import torch

from export.interface import with_interface
from export.parity import check_parity
from export.profile import profile
from export.result import ConvertedModel, ConvertResult, ProfileResult
from export.to_onnx import to_onnx
from flows.stage import Stage, distilled_student, trained_teacher
from pipeline.errors import ExportError
from pipeline.frozen import Frozen
from pipeline.metrics import Metrics
from pipeline.rundir import file_digest
from search.result import Candidate


class ReportResult(Frozen):
    """The last word: accuracies on the test split, opened here once."""

    teacher: Metrics
    student: Metrics
    shipped: Metrics
    bundle: str
    report: str
    digest: str = ""  # of the bundle; whoever keeps it can tell that nothing was altered since


def export_models(stage: Stage, student: Candidate) -> ConvertResult:
    """Student and teacher as ONNX files, each checked against its network."""
    splits = stage.splits()
    task = splits.task
    parts = {"validation": splits.validation, "reference": splits.reference}
    networks = {
        "student": distilled_student(stage, student.architecture, task),
        "teacher": trained_teacher(stage, task),
    }
    examples = splits.validation.batch(torch.arange(min(64, len(splits.validation)))).inputs.numpy()
    models = {}
    for done, (name, network) in enumerate(networks.items()):
        stage.tick(done, len(networks), name)
        data = to_onnx(network, task.input_shape, stage.config.export.opset, task.vocab_size)
        path = stage.run.write("export", f"{name}.onnx", data)
        parity = check_parity(network, path, parts, task.input_shape, task.vocab_size)
        data = with_interface(data, stage.config.export.interface, examples)
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
            parity=parity,
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
