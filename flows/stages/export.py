"""Export teacher and student to ONNX, each checked against its network, and the student to the other formats."""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgestill.export.build import Folder, Reference, build_formats, source_of
from edgestill.export.calibration import Int8Config
from edgestill.export.config import ExportConfig, GateConfig
from edgestill.export.evaluate import answers_of
from edgestill.export.gate import require_a_size_within
from edgestill.export.generation import require_same_text
from edgestill.export.onnx.interface import with_interface
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import MAX_ABS_DIFFERENCE, check_parity, require_accuracy
from edgestill.export.result import Absent, ConvertedModel, ConvertResult
from edgestill.export.tested.examine import network_run
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes, part_of
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.students import networks, shipped
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.figures import size
from edgestill.pipeline.runs.rundir import file_digest
from edgestill.pipeline.teachers import make_teacher
from edgestill.pipeline.teachers.result import TeacherResult


class Export(Stage[ConvertResult]):
    name = "export"
    result = ConvertResult
    to_change = "search.space or export"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config = context.config.export
        export = config.model_copy(update={"gate": GateConfig()})  # the profile stage applies the gate
        allowed = config.gate.max_accuracy_drop  # a repair of INT8 is held to it
        int8 = config.int8
        repairs = int8.repair == "auto" or int8.equalize or int8.correct_bias
        bound = [allowed] if repairs and allowed != GateConfig().max_accuracy_drop else []
        return results.of(TeacherResult), results.shipped_student, export, *bound

    def work(self, context: StageContext, results: Results) -> ConvertResult:
        splits = context.splits()
        task = splits.task
        teacher = _teacher(context, context.teacher(task), splits)
        _, network = networks(context, shipped(context, results), task)
        student, raw = _converted(context, "student", network, splits)
        plain = runner(raw)
        balanced = context.config.distill.training.metric == "balanced_accuracy"
        answers = answers_of(plain, splits.validation, balanced=balanced)
        require_accuracy(answers.metrics, results.shipped_student.validation, plain, splits.validation, task)
        path = context.run.root / student.path
        if path != raw:
            answers = answers_of(runner(path), splits.validation, balanced=balanced)
        student = student.model_copy(update={"validation": answers.metrics})
        others, absent = _others(context, network, raw, Reference(path, answers), splits, context.config.export)
        converted = ConvertResult(teacher=teacher, student=student, others=others, absent=absent)
        require_a_size_within(converted.formats, context.limits)
        return converted

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        start = time.perf_counter()
        whole = len(probes.splits.validation)
        splits = dataclasses.replace(probes.splits, validation=part_of(probes.splits.validation, _TRIED))
        teacher = _teacher(context, probes.teacher, splits)
        network = probes.student()
        student, raw = _converted(context, "student", network, splits)
        path = context.run.root / student.path
        begun = time.perf_counter()
        answers = answers_of(runner(path), splits.validation)
        answered = time.perf_counter() - begun
        student = student.model_copy(update={"validation": answers.metrics})
        as_made = context.config.export.model_copy(update={"int8": Int8Config(repair="off")})  # of untrained weights
        others, absent = _others(context, network, raw, Reference(path, answers), splits, as_made)
        probes.files = ConvertResult(teacher=teacher, student=student, others=others, absent=absent)
        passes = _PASSES * len(probes.files.formats)
        rest = passes * answered / len(splits.validation) * (whole - len(splits.validation))
        lacking = "".join(f"; no {found.format}: {found.reason}" for found in absent)
        size = (teacher.size_bytes if teacher else 0) + sum(model.size_bytes for model in probes.files.formats.values())
        return Estimate(time.perf_counter() - start + rest, size, f"{', '.join(probes.files.formats)}{lacking}")

    def sentence(self, result: ConvertResult) -> str:
        parity = result.student.parity
        others = "".join(f", {name} {size(model.size_bytes)}" for name, model in result.others.items())
        absent = "".join(f"; no {found.format}" for found in result.absent)
        beside = "" if result.teacher is None else f" (teacher {size(result.teacher.size_bytes)})"
        return (
            f"{size(result.student.size_bytes)} ONNX{beside}{others}{absent}; "
            f"logits within {parity.max_abs_difference:.1e} of torch on {parity.n:,} inputs"
        )


_TRIED = 256  # validation examples in an estimate
_PASSES = 3  # over the validation examples for each format, about: INT8 tries three calibrations


def _teacher(context: StageContext, network: nn.Module, splits: Splits) -> ConvertedModel | None:
    """Export the teacher; None if it has no ONNX form."""
    if not make_teacher(context.config.teacher).exports:
        return None
    return _converted(context, "teacher", network, splits)[0]


def _others(
    context: StageContext, network: nn.Module, raw: Path, fp32: Reference, splits: Splits, config: ExportConfig
) -> tuple[dict[str, ConvertedModel], tuple[Absent, ...]]:
    """Build the formats beside fp32 from the network and its raw file."""
    folder = Folder(context.run.root, partial(context.run.write, "export"))
    source = source_of(network, raw, splits, config)
    return build_formats(source, fp32, splits, config, folder, context.tick)


def _converted(context: StageContext, name: str, network: nn.Module, splits: Splits) -> tuple[ConvertedModel, Path]:
    """Export a network to fp32; return the file's record, and the raw file without interface, checked for parity."""
    context.tick(0, 1, name)
    task, config = splits.task, context.config.export
    data = to_onnx(network, task.inputs, config.opset)
    raw = path = context.run.write("export", f"{name}.onnx" if config.interface == "raw" else f"{name}.raw.onnx", data)
    parts = {"validation": splits.validation, "reference": splits.reference}
    parity = check_parity(network, raw, parts, task.inputs)
    texts = getattr(splits.validation, "texts", None)  # of a language task
    if texts is not None:
        require_same_text(network_run(network, torch.device("cpu")), raw, texts, task.inputs.length, MAX_ABS_DIFFERENCE)
    if config.interface != "raw":
        data = with_interface(data, config.interface, context.file_examples(), task.resize)
        path = context.run.write("export", f"{name}.onnx", data)
    model = ConvertedModel(
        path=str(path.relative_to(context.run.root)),
        sha256=file_digest(path),
        size_bytes=len(data),
        precision="fp32",
        opset=config.opset,
        parity=parity,
    )
    return model, raw
