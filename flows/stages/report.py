"""Open the test split, here alone, and write the bundle with its figures."""

import re
from pathlib import Path
from typing import Any

from torch import nn

from edgestill.distill.result import PruneResult
from edgestill.export.bundle.card_config import HUB_ID
from edgestill.export.bundle.contents import bundle_model, latency_of, quality_of
from edgestill.export.bundle.manifest import MANIFEST, read_manifest
from edgestill.export.bundle.names import model_names
from edgestill.export.bundle.schema import Bundle, Hub, Licences, TestMetrics
from edgestill.export.bundle.write import write_bundle
from edgestill.export.evaluate import answers_of, evaluate_file, evaluate_run, open_files
from edgestill.export.generation import Generated, generated
from edgestill.export.onnx.interface import describe_input, describe_output
from edgestill.export.result import ProfileResult
from edgestill.export.run import Run
from edgestill.export.tested.examine import examine, network_run
from edgestill.export.tested.robustness import MOST_EXAMPLES, MOST_S
from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.baselines.expected import expected_trainings
from edgestill.flows.stages.baselines.tested import worth_of
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import BUNDLE, BaselinesResult, QatResult, ReportResult, Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.students import networks, shipped
from edgestill.flows.wording.worth import worth_sentences
from edgestill.pipeline.data.loading import load_test
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import make_teacher
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.training.confusion import Confusion, useless, weak_classes
from edgestill.pipeline.training.metrics import class_logits, evaluate


class Report(Stage[ReportResult]):
    name = "report"
    result = ReportResult
    beside = BUNDLE
    to_change = "search.space or export"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        compared = filter(None, [results.get(BaselinesResult)])
        shipped = results.of(ProfileResult), results.shipped_student, results.get(QatResult), context.config.card
        return *shipped, *compared

    def work(self, context: StageContext, results: Results) -> ReportResult:
        return _tested_and_bundled(context, results)

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        each = 2 * probes.teacher_evaluated_s + probes.student_evaluated_s
        files = probes.files
        count = 0 if files is None else 3 + len(files.formats)  # the teacher's file and the default's are run again
        count += expected_trainings(context.config, probes) if context.config.baselines.enabled else 0
        seconds = probes.test_size * (each + count * probes.student_evaluated_s)
        both = probes.teacher_evaluated_s + probes.student_evaluated_s
        seconds += min(MOST_S, _SHIFTS * min(MOST_EXAMPLES, probes.test_size) * both)
        size = 0 if files is None else sum(model.size_bytes for model in files.formats.values())
        return Estimate(_BUNDLE_S + seconds, size, f"{probes.test_size:,} test examples; the bundle and the page")

    def sentence(self, result: ReportResult) -> str:
        found = result.confusion
        beside = "" if found is None else f", {found.most_frequent} {found.majority:.2%}"
        said, answered = result.generated, ""
        if said is not None:
            answered = f"; it answers {said.shipped:.1%} of {said.n} prompts exactly, the teacher {said.teacher:.1%}"
        return (
            f"shipped file {result.shipped.accuracy:.2%} on {result.shipped.n} test examples, "
            f"teacher {result.teacher.accuracy:.2%}{beside}{answered}"
        )


_SHIFTS = 12  # of the test examples, about
_BUNDLE_S = 1.6  # to write a bundle and its page, of any size


def _tested_and_bundled(context: StageContext, results: Results) -> ReportResult:
    """Open the test split, once, and write the bundle. The shipped figures are measured on the shipped file."""
    profiled, distilled, student = results.of(ProfileResult), results.shipped_student, shipped(context, results)
    device, task = context.device, context.splits().task
    test = load_test(context.config.read_data, context.config.seed, context.tokenizer())
    runs = open_files(profiled.formats, context.run.root)  # shipped or not
    formats = {name: evaluate_run(run, test) for name, run in runs.items()}
    network, teacher = context.teacher(task).to(device), profiled.teacher
    make_teacher(context.config.teacher).meet(network, [test])
    logits, answered = class_logits(network, test, device), answers_of(runs[profiled.default], test)
    answers = logits.argmax(1)
    taught = answers == test.targets.numpy()
    shipped_by_class, teacher_by_class = (
        Confusion.of(given, test.targets.numpy(), task.num_classes, task.inputs.unit)
        for given in (answered.logits.argmax(1), answers)
    )
    context.cautions.extend(_cautions(task, shipped_by_class, teacher_by_class))
    shipped_network = networks(context, student, task)[1].to(device)
    scores = {
        "teacher": evaluate(network, test, device),
        "student": evaluate(shipped_network, test, device),
        "shipped": formats[profiled.default],
    }
    worth = worth_of(context, results, test)
    said = _generated(context, results, test, runs[profiled.default], network)
    interface, taught_by = context.config.export.interface, results.of(TeacherResult).cost
    described = task.model_copy(update={"cache": getattr(shipped_network, "cache_shape", None)})
    bundle = Bundle(
        schema="edgestill.bundle/2",
        name=context.config.name,
        task=described,
        interface=interface,
        input=describe_input(described, interface),
        output=describe_output(task, interface),
        models={name: bundle_model(m, formats[name], interface) for name, m in profiled.shipped.items()},
        default=profiled.default,
        defaults=profiled.defaults,
        architecture=f"{context.space.name}:{distilled.architecture}{', pruned' if student.widths else ''}",
        methods=distilled.methods,
        later=_later(results),
        worth=worth_sentences(results, worth),
        metrics={name: TestMetrics(test_accuracy=score.accuracy, n=score.n) for name, score in scores.items()},
        quality=quality_of(runs[profiled.default], answered, test, task),
        cost={"student": distilled.cost} if taught_by is None else {"teacher": taught_by, "student": distilled.cost},
        latency=latency_of(profiled),
        **_provenance(context),
    )
    files = {name: context.run.root / path for m in profiled.shipped.values() for name, path in model_names(m).items()}
    tokenizer = context.tokenizer()

    def fill(folder: Path) -> None:
        context.cautions.extend(write_bundle(folder, bundle, files, tokenizer))

    folder = context.run.write_folder(BUNDLE, fill)
    examined = None
    with nicety("the test split was not looked at closely", context.cautions):
        run = runs[profiled.default]
        examined = examine(network, logits, run, answered.logits, test, task, device, tokenizer)
    return ReportResult(
        **scores,
        formats=formats,
        teacher_file=None if teacher is None else evaluate_file(context.run.root / teacher.path, test),
        lost=int((taught & ~answered.right).sum()),
        gained=int((answered.right & ~taught).sum()),
        confusion=shipped_by_class,
        teacher_confusion=teacher_by_class,
        examined=examined,
        digest=read_manifest((folder / MANIFEST).read_bytes()).digest,
        worth=worth,
        generated=said,
    )


def _generated(
    context: StageContext, results: Results, test: ImageSplit, run: Run, teacher: nn.Module
) -> Generated | None:
    """Have the language models of a run continue the test prompts; None of other tasks."""
    texts = getattr(test, "texts", None)
    coder = context.splits().coder
    if texts is None or coder is None:
        return None
    student, task, device = shipped(context, results), context.splits().task, context.device
    trained, fresh = networks(context, student, task)[1], context.fresh_student(student.architecture, task)
    asked = tuple(network_run(network.to(device), device) for network in (teacher, trained))
    return generated((*asked, run, network_run(fresh.to(device), device)), texts, task.inputs.length, coder.decode_all)


def _cautions(task: Task, shipped: Confusion, teacher: Confusion) -> list[str]:
    """Caution against models that are no better than the most frequent class, and classes hardly recognised."""
    said = (
        useless(teacher, "the teacher", "test"),
        useless(shipped, "the shipped file", "test"),
        weak_classes(shipped, task.labels, "the shipped file", "test") if task.inputs.has_classes else "",
    )
    return [sentence for sentence in said if sentence]


def _later(results: Results) -> tuple[str, ...]:
    """Changes to the shipped weights after distillation (pruning, fine-tuning for INT8), a sentence each."""
    pruned, fine_tuned = results.get(PruneResult), results.get(QatResult)
    done = [] if pruned is None or pruned.refused is not None else [f"pruned: {results.sentence(PruneResult)}"]
    if fine_tuned is not None and fine_tuned.models.keys() & results.of(ProfileResult).shipped.keys():
        done.append(f"fine-tuned for INT8: {results.sentence(QatResult)}")
    return tuple(done)


def _hub(config: RunConfig) -> Hub:
    """Names for the hub: the card's, else those that the teacher's and the data's settings tell."""
    teacher, data = (
        name if name is not None and re.fullmatch(HUB_ID, name) else None
        for name in (make_teacher(config.teacher).hub_id, config.data.hub_id)
    )
    return Hub(
        base_model=config.card.base_model or teacher,
        datasets=config.card.datasets or ((data,) if data else ()),
        tags=config.card.tags,
    )


def _provenance(context: StageContext) -> dict[str, Any]:
    """Fields of the bundle taken from the run's records and configuration."""
    config, manifest, splits = context.config, context.run.manifest, context.splits()
    return {
        "created": manifest.created,
        "data": {
            "name": config.data.name,
            "description": config.card.data or "",
            "sizes": splits.sizes,
            "digests": splits.digests,
        },
        "use": {"intended": config.card.intended or "", "limits": config.card.limits or ""},
        "hub": _hub(config),
        "licences": Licences(model=config.card.licence, data=config.card.data_licence),
        "budget": config.search.budget.model_dump(mode="json"),
        "seeds": {"run": config.seed},
        "versions": manifest.versions,
        "machine": manifest.machine,
        "git_commit": manifest.git_commit,
        "config_digest": manifest.config_digest,
    }
