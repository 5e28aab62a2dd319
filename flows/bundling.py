"""The report stage: open the test split, here alone, and write the bundle with its figures."""

from pathlib import Path
from typing import Any

from edgestill.distill.result import DistillResult, PruneResult
from edgestill.export.bundle.contents import bundle_model, latency_of, quality_of
from edgestill.export.bundle.manifest import MANIFEST, read_manifest
from edgestill.export.bundle.names import model_names
from edgestill.export.bundle.schema import Bundle, Licences, TestMetrics
from edgestill.export.bundle.write import write_bundle
from edgestill.export.evaluate import answers_of, evaluate_file, evaluate_run, open_files
from edgestill.export.onnx.interface import describe_input, describe_output
from edgestill.export.result import ProfileResult
from edgestill.flows.delivery import BUNDLE, ReportResult
from edgestill.flows.quantization import QatResult
from edgestill.flows.sentences import sentence
from edgestill.flows.stage import Stage, distilled_student, trained_teacher
from edgestill.pipeline.data.splits import load_test
from edgestill.pipeline.teachers.teacher import TeacherResult
from edgestill.pipeline.training.metrics import evaluate, right_answers


def test_and_bundle(
    stage: Stage, teacher: TeacherResult, distilled: DistillResult, profiled: ProfileResult
) -> ReportResult:
    """Open the test split, once, and write the bundle. The shipped figures are measured on the shipped file."""
    device, task = stage.device, stage.splits().task
    test = load_test(stage.config.read_data, stage.config.seed, stage.tokenizer())
    runs = open_files(profiled.formats, stage.run.root)  # shipped or not
    formats = {name: evaluate_run(run, test) for name, run in runs.items()}
    network = trained_teacher(stage, task).to(device)
    taught = right_answers(network, test, device)
    answered = answers_of(runs[profiled.default], test)
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
        models={name: bundle_model(m, formats[name], interface) for name, m in profiled.shipped.items()},
        default=profiled.default,
        architecture=f"{stage.config.search.space.name}:{distilled.architecture}{', pruned' if is_pruned else ''}",
        methods=distilled.methods,
        later=_later(stage, pruned, profiled),
        metrics={name: TestMetrics(test_accuracy=score.accuracy, n=score.n) for name, score in scores.items()},
        quality=quality_of(runs[profiled.default], answered, test, task),
        cost={"teacher": teacher.cost, "student": distilled.cost},
        latency=latency_of(profiled),
        **_provenance(stage),
    )
    files = {name: stage.run.root / path for m in profiled.shipped.values() for name, path in model_names(m).items()}
    tokenizer = stage.tokenizer()

    def fill(folder: Path) -> None:
        stage.cautions.extend(write_bundle(folder, bundle, files, tokenizer))

    folder = stage.run.write_folder(BUNDLE, fill)
    return ReportResult(
        **scores,
        formats=formats,
        teacher_file=evaluate_file(stage.run.root / profiled.teacher.path, test),
        lost=int((taught & ~answered.right).sum()),
        gained=int((answered.right & ~taught).sum()),
        digest=read_manifest((folder / MANIFEST).read_bytes()).digest,
    )


def _later(stage: Stage, pruned: PruneResult | None, profiled: ProfileResult) -> tuple[str, ...]:
    """Changes to the shipped weights after distillation (pruning, fine-tuning for INT8), a sentence each."""
    fine_tuned = stage.run.read("qat", QatResult) if stage.config.qat.mode != "never" else None
    done = [] if pruned is None or pruned.refused is not None else [f"pruned: {sentence(pruned)}"]
    if fine_tuned is not None and fine_tuned.models.keys() & profiled.shipped.keys():
        done.append(f"fine-tuned for INT8: {sentence(fine_tuned)}")
    return tuple(done)


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
