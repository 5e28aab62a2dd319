"""The report's stage: the one place that opens the test split, and the bundle that is written from what it says."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from distill.result import DistillResult
from export.bundle import Bundle, BundleModel, ClassQuality, Licences, Quality, TestMetrics, write_bundle
from export.formats import FORMATS, Run
from export.interface import describe_input, describe_output
from export.manifest import MANIFEST, read_manifest
from export.quality import ECE_BINS, accuracy, by_class, calibration, logits_of, perturbed
from export.result import ProfileResult
from flows.delivery import ReportResult
from flows.stage import Stage, distilled_student, trained_teacher
from pipeline.data import ImageSplit, load_test
from pipeline.metrics import evaluate, metrics_of
from pipeline.task import Task
from pipeline.teacher import TeacherResult

ROBUSTNESS_EXAMPLES = 2000  # of the test split, at most


class Shipped(NamedTuple):
    """A form of the student that passed the gate."""

    path: Path  # its first file, in the run
    run: Run
    logits: np.ndarray  # [N, K] on the test split
    model: BundleModel


def test_and_bundle(
    stage: Stage, teacher: TeacherResult, distilled: DistillResult, profiled: ProfileResult
) -> ReportResult:
    """Open the test split, once; write the bundle. The shipped figures are the shipped file's."""
    device, task = stage.device, stage.splits().task
    test = load_test(stage.config.read_data, stage.config.seed, stage.tokenizer())
    shipped, default = _shipped(stage, profiled, test)
    scores = {
        "teacher": evaluate(trained_teacher(stage, task).to(device), test, device),
        "student": evaluate(distilled_student(stage, distilled.architecture, task).to(device), test, device),
        "shipped": metrics_of([(torch.from_numpy(shipped[default].logits), test.targets)]),
    }
    bundle = Bundle(
        schema="edgestill.bundle/2",
        name=stage.config.name,
        task=task,
        interface=stage.config.export.interface,
        input=describe_input(task, stage.config.export.interface),
        output=describe_output(task, stage.config.export.interface),
        models={name: form.model for name, form in shipped.items()},
        default=default,
        architecture=f"{stage.config.search.space.name}:{distilled.architecture}",
        methods=distilled.methods,
        metrics={name: TestMetrics(test_accuracy=score.accuracy, n=score.n) for name, score in scores.items()},
        quality=_quality(shipped[default], test, task),
        cost={"teacher": teacher.cost, "student": distilled.cost},
        latency=_latency(profiled),
        **_provenance(stage),
    )
    files, tokenizer = {form.model.file: form.path for form in shipped.values()}, stage.tokenizer()
    folder = stage.run.write_folder("bundle", lambda folder: write_bundle(folder, bundle, files, tokenizer))
    digest = read_manifest((folder / MANIFEST).read_bytes()).digest
    return ReportResult(**scores, bundle="bundle", report="report.html", digest=digest)


def _shipped(stage: Stage, profiled: ProfileResult, test: ImageSplit) -> tuple[dict[str, Shipped], str]:
    """The forms that ship, tested, and which of them is the default."""
    student = profiled.student
    path = stage.run.root / student.path
    run = FORMATS[student.precision](stage.config.export).open(path, student.latency.threads)
    logits = np.concatenate([run(b.inputs.contiguous().numpy()) for b in test.batches(256)])
    model = BundleModel(
        file="model.onnx",
        format="fp32",
        precision=student.precision,
        runtime="onnxruntime",
        bytes=student.size_bytes,
        parity=student.parity,
        test_accuracy=accuracy(logits, test.targets.numpy()),
        latency=student.latency.summary,
    )
    return {"fp32": Shipped(path, run, logits, model)}, "fp32"


def _quality(form: Shipped, test: ImageSplit, task: Task) -> Quality:
    targets = test.targets.numpy()
    ece, confidence = calibration(form.logits, targets)
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:ROBUSTNESS_EXAMPLES]
    examples = test.batch(chosen.sort().values)
    given = examples.inputs.contiguous().numpy()
    robustness = {
        damage: accuracy(logits_of(form.run, damaged), examples.targets.numpy())
        for damage, damaged in perturbed(given, task)
    }
    scores = by_class(form.logits, targets)
    return Quality(
        classes=tuple(
            ClassQuality(label=label, n=s.n, precision=s.precision, recall=s.recall)
            for label, s in zip(task.labels, scores, strict=True)
        ),
        ece=ece,
        ece_bins=ECE_BINS,
        confidence=confidence,
        robustness=robustness,
        robustness_n=len(chosen),
    )


def _provenance(stage: Stage) -> dict[str, Any]:
    """What of the bundle the run's records and configuration say."""
    config, manifest, splits = stage.config, stage.run.manifest, stage.splits()
    return {
        "created": manifest.created,
        "data": {
            "name": config.data.name,
            "description": config.card.data or "",
            "sizes": splits.sizes,
            "digests": splits.digests,
        },
        "use": {"intended": config.card.intended or "", "limits": config.card.limits or ""},
        "licences": Licences(model=config.card.licence, data=config.card.data_licence),
        "budget": config.search.budget.model_dump(mode="json"),
        "seeds": {"run": config.seed},
        "versions": manifest.versions,
        "machine": manifest.machine,
        "git_commit": manifest.git_commit,
        "config_digest": manifest.config_digest,
    }


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
