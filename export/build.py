"""The student's files in every configured format, each judged on validation; a failed format is recorded."""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from edgestill.export.calibration import calibration_examples
from edgestill.export.config import ExportConfig
from edgestill.export.device.facts import byte_products
from edgestill.export.evaluate import Answers, answers_of
from edgestill.export.formats import FORMATS, Format, Source
from edgestill.export.formats.base import Files
from edgestill.export.gate import loses_too_much
from edgestill.export.onnx.equalize import equalized
from edgestill.export.onnx.interface import with_interface
from edgestill.export.onnx.saturation import saturates_here
from edgestill.export.onnx.sessions import Interface
from edgestill.export.parity import measure_parity, require_fp16_parity
from edgestill.export.result import Absent, Arithmetic, ConvertedModel, Parity
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.errors import EdgestillError, ExportError, first_line
from edgestill.pipeline.runs.rundir import file_digest
from edgestill.pipeline.training.difference import Difference, balanced_difference


class Folder(NamedTuple):
    """Place of a student's files in a run."""

    root: Path  # of the run; results name files relative to it
    write: Callable[[str, bytes], Path]  # a file's name and content to its path


class Reference(NamedTuple):
    """The shipped fp32 file, which the others are compared with."""

    path: Path
    answers: Answers  # on validation


class _Variant(NamedTuple):
    name: str
    files: Files
    answers: Answers  # if an INT8 file's answers depend on the processor, the worse ones
    distance: float  # mean absolute difference of a logit from fp32
    arithmetic: Arithmetic | None  # of an INT8 file
    in_float: dict[str, float] = {}  # as in ConvertedModel
    equalized: int = 0
    bias_corrected: bool = False
    for_speed: tuple[str, ...] = ()


def source_of(network: nn.Module, onnx: Path, splits: Splits, config: ExportConfig) -> Source:
    """Return the material for a network's formats.

    Args:
        onnx: its checked file, without an interface, whose softmax would be quantized too.
    """
    examples = calibration_examples(splits.reference, config.calibration.examples)
    return Source(onnx=onnx, network=network.cpu().eval(), task=splits.task, calibration=examples)


def build_formats(
    source: Source,
    fp32: Reference,
    splits: Splits,
    config: ExportConfig,
    folder: Folder,
    tick: Callable[[int, int, str], None],
) -> tuple[dict[str, ConvertedModel], tuple[Absent, ...]]:
    """Build the formats beside fp32; give those made, and for each other one the reason. No failure ends a run."""
    built: dict[str, ConvertedModel] = {}
    absent: list[Absent] = []
    names = [name for name in config.formats if name != "fp32"]
    for done, name in enumerate(names):
        tick(done, len(names), name)
        missing = FORMATS[name].missing()
        if missing is not None:
            absent.append(_unrun(FORMATS[name], source, config, folder, missing))
            continue
        made = try_format(FORMATS[name], source, fp32, splits, config, folder)
        if isinstance(made, str):
            absent.append(Absent(format=name, reason=made, skipped=False))
        else:
            built[name] = made
    return built, tuple(absent)


def _unrun(form: Format, source: Source, config: ExportConfig, folder: Folder, missing: str) -> Absent:
    """Record a format that nothing here runs; its file is written into the run if it can be made, and never ships."""
    if not form.is_made_unrun():
        return Absent(format=form.name, reason=missing, skipped=True)
    try:
        files = form.build(source, config)
    except EdgestillError as error:
        return Absent(format=form.name, reason=str(error), skipped=False)
    paths = [folder.write(f"student.{form.name}{suffix}", data) for suffix, data in files.items()]
    names = ", ".join(str(path.relative_to(folder.root)) for path in paths)
    return Absent(format=form.name, reason=f"{names} is made and not run here: {missing}", skipped=True)


def try_format(
    form: Format, source: Source, fp32: Reference, splits: Splits, config: ExportConfig, folder: Folder
) -> ConvertedModel | str:
    """Build the format's best variant on validation; on failure return the reason: other formats are still to come."""
    try:
        return _build(form, source, fp32, splits, config, folder)
    except EdgestillError as error:
        return str(error)
    except Exception as error:  # a format's library has error types of its own
        return f"{type(error).__name__}: {first_line(error)}"


def with_interfaces(form: Format, files: Files, interface: Interface, source: Source) -> Files:
    """Add the configured interface to a format's files, if the format takes it and has not added it itself."""
    if form.interface(interface) == "raw" or form.adds_interface:
        return files
    data, examples = files[form.suffix], source.calibration[:64]
    return {**files, form.suffix: with_interface(data, interface, examples, source.task.resize)}


def _build(
    form: Format, source: Source, fp32: Reference, splits: Splits, config: ExportConfig, folder: Folder
) -> ConvertedModel:
    """Try every variant, write and measure the best by the figure that chooses; a tie goes to the nearest to fp32."""
    tried = _tried(form, source, fp32, splits.validation, config)
    if not tried:
        raise ExportError("the format made no file")
    best = _best(tried)
    if form.precision == "int8" and not _holds(best, fp32, config):
        best = _saved(form, source, fp32, splits.validation, config, best)
    elif form.precision == "int8" and config.int8.quicken:
        best = _quickened(form, source, fp32, splits.validation, config, best)
    paths = [folder.write(f"student.{form.name}{suffix}", data) for suffix, data in best.files.items()]
    first, *beside = (str(path.relative_to(folder.root)) for path in paths)
    return ConvertedModel(
        path=first,
        beside=tuple(beside),
        sha256=file_digest(paths[0]),
        size_bytes=sum(map(len, best.files.values())),
        precision=form.precision,
        opset=config.opset,
        parity=_parity(form, paths[0], fp32.path, splits),
        format=form.name,
        runtime=form.runtime,
        variant=best.name,
        tried={variant.name: variant.answers.metrics.score for variant in tried if variant.name},
        validation=best.answers.metrics,
        lost=int((fp32.answers.right & ~best.answers.right).sum()),
        gained=int((best.answers.right & ~fp32.answers.right).sum()),
        arithmetic=best.arithmetic,
        difference=_difference(best.answers, fp32.answers, splits.validation),
        in_float=best.in_float,
        equalized=best.equalized,
        bias_corrected=best.bias_corrected,
        for_speed=best.for_speed,
    )


def _difference(found: Answers, fp32: Answers, validation: ImageSplit) -> Difference | None:
    """Compare the mean recall with fp32's; None where the accuracy chooses."""
    if not fp32.is_balanced:
        return None
    return balanced_difference(found.right, fp32.right, validation.targets.cpu().numpy())


def _tried(
    form: Format, source: Source, fp32: Reference, validation: ImageSplit, config: ExportConfig
) -> list[_Variant]:
    return [
        _measured(form, name, with_interfaces(form, files, config.interface, source), fp32, validation)
        for name, files in form.variants(source, config)
    ]


def _measured(form: Format, name: str, files: Files, fp32: Reference, validation: ImageSplit) -> _Variant:
    with tempfile.TemporaryDirectory() as folder:
        for suffix, data in files.items():
            Path(folder, f"model{suffix}").write_bytes(data)
        path = Path(folder, f"model{next(iter(files))}")
        answers, arithmetic = _on_every_processor(form, path, validation, fp32.answers.is_balanced)
    distance = float(np.abs(answers.logits - fp32.answers.logits).mean())
    return _Variant(name, files, answers, distance, arithmetic)


def _best(tried: Sequence[_Variant]) -> _Variant:
    """Return the one with the best figure that chooses, of equals the nearest to fp32; of equals of that the first."""
    return max(tried, key=lambda variant: (variant.answers.metrics.score, -variant.distance))


def _holds(variant: _Variant, fp32: Reference, config: ExportConfig) -> bool:
    return not loses_too_much(variant.answers.metrics, fp32.answers.metrics, config.gate.max_accuracy_drop)


def _saved(
    form: Format, source: Source, fp32: Reference, validation: ImageSplit, config: ExportConfig, best: _Variant
) -> _Variant:
    """Return an INT8 variant that keeps its accuracy, by the configured ways; if none does, the best one found."""
    with tempfile.TemporaryDirectory() as folder:
        made = [(source, best)]
        if config.int8.equalize and not form.needs_network:
            data, pairs = equalized(source.onnx.read_bytes())
            equal = dataclasses.replace(source, onnx=Path(folder, "equalized.onnx"))
            equal.onnx.write_bytes(data)
            if pairs:
                found = _best(_tried(form, equal, fp32, validation, config))
                made.append((equal, found._replace(equalized=pairs)))
        if config.int8.correct_bias and form.corrects_bias and not any(_holds(one, fp32, config) for _, one in made):
            for before, plain in tuple(made):  # the two may help together where neither helps alone
                careful = dataclasses.replace(before, correct_bias=True)
                found = _best(_tried(form, careful, fp32, validation, config))
                made.append((careful, found._replace(equalized=plain.equalized, bias_corrected=True)))
        best = _best([one for _, one in made])
        if config.int8.repair == "auto" and not _holds(best, fp32, config):
            chosen = next(before for before, one in made if one is best)
            best = _repaired(form, chosen, fp32, validation, config, best)
    return best


def _repaired(
    form: Format, source: Source, fp32: Reference, validation: ImageSplit, config: ExportConfig, best: _Variant
) -> _Variant:
    """Return the variant with the layers at fault in float; the variant itself if no such file keeps its accuracy."""

    def measured(files: Files) -> _Variant:
        return _measured(form, best.name, with_interfaces(form, files, config.interface, source), fp32, validation)

    try:
        found = form.repaired(source, config, best.name, lambda files: _holds(measured(files), fp32, config))
    except ExportError:  # the file itself is there, and is still worth judging
        return best
    if found is None:
        return best
    made = measured(found[0])
    return made._replace(in_float=found[1], equalized=best.equalized, bias_corrected=best.bias_corrected)


def _quickened(
    form: Format, source: Source, fp32: Reference, validation: ImageSplit, config: ExportConfig, best: _Variant
) -> _Variant:
    """Return the variant with layers in float that cost time in 8 bits; the variant itself if that does not help."""

    def measured(files: Files) -> _Variant:
        return _measured(form, best.name, with_interfaces(form, files, config.interface, source), fp32, validation)

    try:
        found = form.quickened(source, config, best.name, lambda files: _holds(measured(files), fp32, config))
    except ExportError:
        return best
    return best if found is None else measured(found[0])._replace(for_speed=found[1])


def _on_every_processor(
    form: Format, path: Path, validation: ImageSplit, balanced: bool
) -> tuple[Answers, Arithmetic | None]:
    """Give the file's answers, from the kind of processor with the worse ones if kinds differ, and how they differ."""
    here, saturable = answers_of(form.open(path, 1), validation, balanced=balanced), form.saturable(path)
    if saturable is None:
        return here, None
    about = Arithmetic(saturable=saturable, measured_on=byte_products())
    if not saturable:
        return here, about
    try:
        elsewhere = answers_of(form.elsewhere(path, 1), validation, balanced=balanced)
    except ExportError as error:
        return here, about.model_copy(update={"unknown": str(error)})
    kinds = dict(
        zip(("saturating", "exact") if saturates_here() else ("exact", "saturating"), (here, elsewhere), strict=True)
    )
    accuracy = {kind: answers.metrics.score for kind, answers in kinds.items()}
    worse = min(here, elsewhere, key=lambda answers: answers.metrics.score)
    return worse, about.model_copy(update={"accuracy": accuracy})


def _parity(form: Format, path: Path, fp32: Path, splits: Splits) -> Parity:
    parts = {"validation": splits.validation, "reference": splits.reference}
    task, reference = splits.task, FORMATS["fp32"].open(fp32, 1)
    parity = measure_parity(reference, form.open(path, 1), parts, task.inputs)
    if form.precision == "fp16":
        require_fp16_parity(parity)
    return parity
