"""The report stage: open the test split, here alone, and write the bundle with its figures."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgestill.distill.result import DistillResult, PruneResult
from edgestill.export.bundle.manifest import MANIFEST, read_manifest
from edgestill.export.bundle.schema import Bundle, BundleModel, ClassQuality, Licences, Quality, TestMetrics
from edgestill.export.bundle.write import model_stem, write_bundle
from edgestill.export.formats import FORMATS, Run
from edgestill.export.onnx.interface import Interface, describe_input, describe_output, interface_of
from edgestill.export.profile import evaluate_file, evaluate_run
from edgestill.export.quality import ECE_BINS, accuracy, by_class, calibration, logits_of, perturbed
from edgestill.export.result import ConvertedModel, ExportedModel, ProfileResult
from edgestill.flows.delivery import BUNDLE, ReportResult
from edgestill.flows.formats import answers_of
from edgestill.flows.quantization import QatResult
from edgestill.flows.sentences import sentence
from edgestill.flows.stage import Stage, distilled_student, trained_teacher
from edgestill.pipeline.data.loading import load_test
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.training.metrics import Metrics, evaluate, right_answers

ROBUSTNESS_EXAMPLES = 2000  # of the test split, at most


def test_and_bundle(
    stage: Stage, teacher: TeacherResult, distilled: DistillResult, profiled: ProfileResult
) -> ReportResult:
    """Open the test split, once, and write the bundle. The shipped figures are measured on the shipped file."""
    device, task = stage.device, stage.splits().task
    test = load_test(stage.config.read_data, stage.config.seed, stage.tokenizer())
    runs = _opened(stage, profiled)
    formats = {name: evaluate_run(run, test) for name, run in runs.items()}
    network = trained_teacher(stage, task).to(device)
    taught = right_answers(network, test, device)
    answered = answers_of(runs[profiled.default], test).right
    scores = {
        "teacher": evaluate(network, test, device),
        "student": evaluate(distilled_student(stage, distilled.architecture, task).to(device), test, device),
        "shipped": formats[profiled.default],
    }
    interface = stage.config.export.interface
    pruned = stage.run.read("prune", PruneResult) if stage.config.prune.enabled else None
    is_pruned = pruned is not None and pruned.refused is None
    bundle = Bundle(
        schema="edgestill.bundle/2",
        name=stage.config.name,
        task=task,
        interface=interface,
        input=describe_input(task, interface),
        output=describe_output(task, interface),
        models={name: _model(m, formats[name], interface) for name, m in profiled.shipped.items()},
        default=profiled.default,
        architecture=f"{stage.config.search.space.name}:{distilled.architecture}{', pruned' if is_pruned else ''}",
        methods=distilled.methods,
        later=_later(stage, pruned, profiled),
        metrics={name: TestMetrics(test_accuracy=score.accuracy, n=score.n) for name, score in scores.items()},
        quality=_quality(runs[profiled.default], test, task),
        cost={"teacher": teacher.cost, "student": distilled.cost},
        latency=_latency(profiled),
        **_provenance(stage),
    )
    files = {name: stage.run.root / path for m in profiled.shipped.values() for name, path in _names(m).items()}
    tokenizer = stage.tokenizer()

    def fill(folder: Path) -> None:
        stage.cautions.extend(write_bundle(folder, bundle, files, tokenizer))

    folder = stage.run.write_folder(BUNDLE, fill)
    return ReportResult(
        **scores,
        formats=formats,
        teacher_file=evaluate_file(stage.run.root / profiled.teacher.path, test),
        lost=int((taught & ~answered).sum()),
        gained=int((answered & ~taught).sum()),
        digest=read_manifest((folder / MANIFEST).read_bytes()).digest,
    )


def _later(stage: Stage, pruned: PruneResult | None, profiled: ProfileResult) -> tuple[str, ...]:
    """Changes to the shipped weights after distillation (pruning, fine-tuning for INT8), a sentence each."""
    fine_tuned = stage.run.read("qat", QatResult) if stage.config.qat.mode != "never" else None
    done = [] if pruned is None or pruned.refused is not None else [f"pruned: {sentence(pruned)}"]
    if fine_tuned is not None and fine_tuned.models.keys() & profiled.shipped.keys():
        done.append(f"fine-tuned for INT8: {sentence(fine_tuned)}")
    return tuple(done)


def _opened(stage: Stage, profiled: ProfileResult) -> dict[str, Run]:
    """Open every timed file of the student, shipped or not."""
    config = stage.config.export
    return {
        name: FORMATS[name](config).open(stage.run.root / model.path, 1) for name, model in profiled.formats.items()
    }


def _model(model: ExportedModel, tested: Metrics, interface: Interface) -> BundleModel:
    return BundleModel(
        file=next(iter(_names(model))),
        format=model.format,
        precision=model.precision,
        runtime=model.runtime,
        interface=interface_of(model.runtime, interface),
        bytes=model.size_bytes,
        parity=model.parity,
        validation_accuracy=None if model.validation is None else model.validation.accuracy,
        test_accuracy=tested.accuracy,
        latency=model.latency.summary,
        arithmetic=model.arithmetic,
    )


def _names(model: ConvertedModel) -> dict[str, str]:
    """Names in the bundle -> paths in the run: `model.onnx` is fp32's, others are `model.<format><suffix>`."""
    stem = "student" if model.format == "fp32" else f"student.{model.format}"
    paths = (model.path, *model.beside)
    return {Path(path).name.replace(stem, model_stem(model.format), 1): path for path in paths}


def _quality(run: Run, test: ImageSplit, task: Task) -> Quality:
    targets = test.targets.numpy()
    logits = np.concatenate([run(batch.inputs.contiguous().numpy()) for batch in test.batches(256)])
    ece, confidence = calibration(logits, targets)
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:ROBUSTNESS_EXAMPLES]
    examples = test.batch(chosen.sort().values)
    given = examples.inputs.contiguous().numpy()
    robustness = {
        damage: accuracy(logits_of(run, damaged), examples.targets.numpy())
        for damage, damaged in perturbed(given, task)
    }
    scores = by_class(logits, targets)
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
    """Fields of the bundle taken from the run's records and configuration."""
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
