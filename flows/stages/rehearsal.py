"""Rehearsal of the export on untrained networks: an impossible setting is refused before anything is trained.

A rehearsal passed once is not repeated with the same code, versions and settings.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgestill.distill.compression.fake_quant import fake_quantized
from edgestill.export.calibration import MIN_EXAMPLES, calibration_examples, require_sound
from edgestill.export.config import ExportConfig
from edgestill.export.formats import FORMATS, Format, Source
from edgestill.export.onnx.interface import with_interface
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.flows.cache import once
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.heads import heads, what_ships
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.errors import ConfigError, first_line
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.teachers import build_teacher, make_teacher
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.precision import require_fast_precision
from edgestill.search.ends import ends_within_budget
from edgestill.search.space import Architecture

_DEFAULT = ExportConfig()

Problems = dict[str, str]  # setting -> why it cannot work


def rehearse_export(context: StageContext, splits: Splits) -> None:
    """Make, open and run every configured format of the smallest and the largest student, and the teacher's file.

    A format unavailable here is left out, as in the export. A failure of one student alone is only a caution: the
    search may avoid it.

    Raises:
        ConfigError: the teacher cannot be exported, or no student can in some format; names the setting.
    """
    config, task = context.config, splits.task
    if config.rank_check.only or config.smoke:  # a smoke run's own export comes within seconds
        return
    seed, space = context.seed("search"), context.space
    ships = what_ships(config.distill)
    ends = {space.format(end): end for end in ends_within_budget(config.search, task, seed, ships)}
    _require_precision(context, splits, list(ends.values())[-1])
    sides = (
        task.kind,
        task.input_shape,
        task.num_classes,
        task.vocab_size,
    )  # the examples' content changes no operator
    content = (config.export, sides, len(splits.reference) < MIN_EXAMPLES)

    def teacher() -> Problems:
        with drawn_from(seed), tempfile.TemporaryDirectory() as folder:
            return _of_fp32(build_teacher(config.teacher, task), config.export, splits, Path(folder) / "teacher.onnx")

    if make_teacher(config.teacher).exports:
        context.tick(0, len(ends) + 1, "trying the export of the teacher")
        untrained = config.teacher.model_copy(update={"training": TrainingConfig()})
        problems = _lines(once("rehearsal", (content, untrained), teacher), "the teacher")
        if problems:  # the students would fail the same way
            raise ConfigError(problems)
    found: dict[str, Problems] = {}
    for done, (text, end) in enumerate(ends.items(), 1):
        context.tick(done, len(ends) + 1, f"trying the export of student {text}")
        layers_of = [untrained] if hasattr(config.search.space, "beside") else []  # of the teacher, so it is their form
        about = (content, config.search.space, text, heads(config.distill), config.qat.mode, *layers_of)
        found[text] = once("rehearsal", about, lambda a=end: _of_student(context, a, splits))  # type: ignore[misc]
    everywhere = set.intersection(*(set(settings) for settings in found.values()))
    for text, settings in found.items():
        who = f"student {text} of space {space.name!r}"
        for line in _lines({n: why for n, why in settings.items() if n not in everywhere}, who):
            context.say(f"caution: {line}")
    if everywhere:
        smallest = next(iter(ends))
        first = {name: found[smallest][name] for name in sorted(everywhere)}
        raise ConfigError(_lines(first, f"student {smallest} of space {space.name!r}"))


def _require_precision(context: StageContext, splits: Splits, largest: Architecture) -> None:
    """Refuse a precision that makes the steps of the largest student slower.

    Raises:
        ConfigError: it does.
    """
    if context.compute.precision == "fp32":
        return
    device, size = context.device, min(context.config.distill.training.batch_size, len(splits.train))
    labelled = splits.train.labelled()
    batch = labelled.batch(torch.arange(min(size, len(labelled))), device)
    context.tick(0, 1, "timing a step in each precision")
    require_fast_precision(context.structure(largest, splits.task), batch, context.compute, device)


def _lines(problems: Problems, who: str) -> list[str]:
    return [f"{setting} cannot work for {who}: {why}" for setting, why in problems.items()]


def _of_student(context: StageContext, architecture: Architecture, splits: Splits) -> Problems:
    """Problems of exporting this student, by setting."""
    config, ships = context.config.export, what_ships(context.config.distill)
    student = context.structure(architecture, splits.task)
    network = (student if ships is None else ships(student)).cpu().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.onnx"
        problems = _of_fp32(network, config, splits, path)
        if problems:
            return problems
        # One calibration method stands for all: they differ in the ranges found, not in the files' operators.
        minmax = config.calibration.model_copy(update={"method": "minmax"})
        brief = config.model_copy(update={"calibration": minmax})
        examples = calibration_examples(splits.reference, MIN_EXAMPLES)
        source = Source(onnx=path, network=network, task=splits.task, calibration=examples)
        for name in config.formats:
            form = FORMATS[name]
            if name == "fp32" or form.missing() is not None or (form.precision == "int8" and not _is_sound(source)):
                continue
            why = _why(lambda f=form: _try(f, source, brief, Path(folder)))  # type: ignore[misc]
            if why is not None:
                problems[f"export.formats: {name}"] = f"{why}; leave {name} out of export.formats"
    if context.config.qat.mode == "always":
        begun_on = [splits.reference.batch(_first(splits.reference))]
        has_head = bool(heads(context.config.distill))
        why = _why(lambda: fake_quantized(student, begun_on, classifier=not has_head))
        if why is not None:
            problems["qat.mode: always"] = f"{why}; set qat.mode=auto or never"
    return problems


def _of_fp32(network: nn.Module, export: ExportConfig, splits: Splits, path: Path) -> Problems:
    """Write the network's fp32 file; on failure return the problem, by the setting whose default would work."""

    def write(config: ExportConfig) -> None:
        task, examples = splits.task, splits.validation.batch(_first(splits.validation)).inputs.numpy()
        data = to_onnx(network, task.inputs, config.opset)
        path.write_bytes(data)
        runner(path)(np.ascontiguousarray(examples))
        with_interface(data, config.interface, np.ascontiguousarray(examples), task.resize)

    why = _why(lambda: write(export))
    if why is None:
        return {}
    for name in ("opset", "interface"):
        default = getattr(_DEFAULT, name)
        if getattr(export, name) != default and _why(lambda n=name: write(_with_default(export, n))) is None:  # type: ignore[misc]
            return {f"export.{name}: {getattr(export, name)}": f"{why}; export.{name}={default} works"}
    return {"the export": why}


def _with_default(export: ExportConfig, name: str) -> ExportConfig:
    return export.model_copy(update={name: getattr(_DEFAULT, name)})


def _try(form: Format, source: Source, config: ExportConfig, folder: Path) -> None:
    """Make the format's files, open and run them; the logits of an untrained student are not judged."""
    for _, files in form.variants(source, config):
        for suffix, data in files.items():
            (folder / f"tried{suffix}").write_bytes(data)
        form.open(folder / f"tried{next(iter(files))}", 1)(source.calibration[:2])


def _is_sound(source: Source) -> bool:
    """True if INT8 can be calibrated on the examples; if not, the data is at fault, not a setting of the export."""
    return _why(lambda: require_sound(source.calibration, source.task)) is None


def _why(work: Callable[[], object]) -> str | None:
    """Reason why the work fails; None if it succeeds. A full disk or memory is no setting's fault and is raised."""
    try:
        work()
    except (OSError, MemoryError):
        raise
    except Exception as error:  # exporters and runtimes have error types of their own
        return first_line(error, type(error).__name__)[:300]
    return None


def _first(split: ImageSplit) -> Tensor:
    return torch.arange(min(2, len(split)))
