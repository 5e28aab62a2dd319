"""Parts of `bundle.json` that come from the profile's result and from the test split."""

from typing import Any

import torch

from edgestill.export.bundle.names import model_names
from edgestill.export.bundle.schema import BundleModel, ClassQuality, Quality
from edgestill.export.evaluate import Answers
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.sessions import Interface
from edgestill.export.quality import accuracy, logits_of, perturbed
from edgestill.export.result import ExportedModel, ProfileResult
from edgestill.export.run import Run
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.calibration import ECE_BINS, calibration
from edgestill.pipeline.training.confusion import Confusion
from edgestill.pipeline.training.metrics import Metrics

ROBUSTNESS_EXAMPLES = 2000  # of the test split, at most


def bundle_model(model: ExportedModel, tested: Metrics, interface: Interface) -> BundleModel:
    """Describe one file.

    Args:
        tested: of the file, on the test split.
        interface: the configured one.
    """
    return BundleModel(
        file=next(iter(model_names(model))),
        format=model.format,
        precision=model.precision,
        runtime=model.runtime,
        interface=FORMATS[model.format].interface(interface),
        bytes=model.size_bytes,
        parity=model.parity,
        validation_accuracy=None if model.validation is None else model.validation.accuracy,
        test_accuracy=tested.accuracy,
        latency=model.latency.summary,
        arithmetic=model.arithmetic,
    )


def quality_of(run: Run, answers: Answers, test: ImageSplit, task: Task) -> Quality:
    """Measure a file's quality on the test split, given its answers there; it runs again on damaged examples."""
    targets = test.targets.numpy()
    ece, confidence = calibration(answers.logits, targets)
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:ROBUSTNESS_EXAMPLES]
    examples = test.batch(chosen.sort().values)
    given = examples.inputs.contiguous().numpy()
    robustness = {
        damage: accuracy(logits_of(run, damaged), examples.targets.numpy())
        for damage, damaged in perturbed(given, task)
    }
    found = Confusion.of(answers.logits.argmax(1), targets, task.num_classes, task.inputs.unit)
    return Quality(
        classes=tuple(
            ClassQuality(label=label, n=int(found.counts[k]), precision=found.precision(k), recall=found.recall(k))
            for k, label in enumerate(task.labels)
        ),
        ece=ece,
        ece_bins=ECE_BINS,
        confidence=confidence,
        robustness=robustness,
        robustness_n=len(chosen),
        confusion=found,
    )


def latency_of(profiled: ProfileResult) -> dict[str, Any]:
    """Compare the default file's latency with the teacher's, and say how both were timed."""
    latency = profiled.student.latency
    return {
        "runtime": latency.runtime,
        "provider": latency.provider,
        "threads": latency.threads,
        "batch": latency.batch,
        "cpu": profiled.cpu,
        "student": latency.summary,
        **_beside_teacher(profiled),
        **({"targets": targets_of(profiled)} if profiled.targets else {}),
    }


def targets_of(profiled: ProfileResult) -> dict[str, Any]:
    """Describe each target of the run, and its latencies of the files that ship."""
    return {
        target.name: {
            "device": target.device,
            "architecture": target.architecture,
            "runtime": target.runtime,
            "threads": target.threads,
            "models": {name: found.summary for name, found in target.latencies.items() if name in profiled.shipped},
        }
        for target in profiled.targets
    }


def _beside_teacher(profiled: ProfileResult) -> dict[str, Any]:
    if profiled.teacher is None or profiled.speedup is None:
        return {}
    return {
        "teacher": profiled.teacher.latency.summary,
        "speedup": profiled.speedup.value,
        "speedup_interval": profiled.speedup.interval,
    }
