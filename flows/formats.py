"""The student's files in every configured format, each judged on validation; a failed format is recorded."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from edgestill.export.calibration import calibration_examples
from edgestill.export.device.facts import byte_products
from edgestill.export.formats import FORMATS, Format, Run, Source
from edgestill.export.onnx.interface import Interface, interface_of, with_interface
from edgestill.export.onnx.saturation import saturates_here
from edgestill.export.parity import measure_parity, require_fp16_parity
from edgestill.export.result import Absent, Arithmetic, ConvertedModel
from edgestill.flows.stage import Stage
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.errors import EdgestillError, ExportError, first_line
from edgestill.pipeline.runs.rundir import file_digest
from edgestill.pipeline.training.metrics import Metrics, metrics_of


class Answers(NamedTuple):
    """A file's answers on a split of N examples."""

    logits: np.ndarray  # [N, K]
    metrics: Metrics
    right: np.ndarray  # [N] bool


class _Variant(NamedTuple):
    name: str
    files: dict[str, bytes]
    answers: Answers  # if an INT8 file's answers depend on the processor, the worse ones
    distance: float  # mean absolute difference of a logit from fp32
    arithmetic: Arithmetic | None  # of an INT8 file


def answers_of(run: Run, split: ImageSplit) -> Answers:
    """Run a file on a whole split; give its logits and their metrics."""
    logits = np.concatenate([run(batch.inputs.contiguous().numpy()) for batch in split.batches(256)])
    metrics = metrics_of([(torch.from_numpy(logits), split.targets)])
    return Answers(logits, metrics, logits.argmax(1) == split.targets.numpy())


def build_formats(
    stage: Stage,
    network: torch.nn.Module,
    raw: Path,
    splits: Splits,
    expected: Answers,
    *,
    fp32: Path | None = None,
) -> tuple[dict[str, ConvertedModel], tuple[Absent, ...]]:
    """Build the formats beside fp32; give those made, and for each other one the reason. No failure ends a run.

    Args:
        raw: the student's checked file, without an interface, whose softmax would be quantized too.
        expected: the shipped fp32 file's answers on validation.
        fp32: the shipped fp32 file, if it is not `raw`.
    """
    config = stage.config.export
    examples = calibration_examples(splits.reference, config.calibration.examples)
    source = Source(onnx=raw, network=network.cpu().eval(), task=splits.task, calibration=examples)
    built: dict[str, ConvertedModel] = {}
    absent: list[Absent] = []
    names = [name for name in config.formats if name != "fp32"]
    for done, name in enumerate(names):
        stage.tick(done, len(names), name)
        form = FORMATS[name](config)
        missing = form.missing()
        if missing is not None:
            absent.append(Absent(format=name, reason=missing, skipped=True))
            continue
        made = try_format(stage, form, source, splits, expected, fp32=fp32)
        if isinstance(made, str):
            absent.append(Absent(format=name, reason=made, skipped=False))
        else:
            built[name] = made
    return built, tuple(absent)


def try_format(
    stage: Stage,
    form: Format,
    source: Source,
    splits: Splits,
    expected: Answers,
    *,
    folder: str = "export",
    fp32: Path | None = None,
) -> ConvertedModel | str:
    """Build the format's best variant on validation; on failure return the reason: other formats are still to come.

    Args:
        folder: of the stage, to write it to.
        fp32: the file to compare it with, if not the source's own.
    """
    try:
        return _build(stage, form, source, splits, expected, folder, fp32 or source.onnx)
    except EdgestillError as error:
        return str(error)
    except Exception as error:  # a format's library has error types of its own
        return f"{type(error).__name__}: {first_line(error)}"


def _build(
    stage: Stage, form: Format, source: Source, splits: Splits, expected: Answers, folder: str, fp32: Path
) -> ConvertedModel:
    """Try every variant, write and measure the most accurate; a tie goes to the one nearest to fp32."""
    config = stage.config.export
    with tempfile.TemporaryDirectory() as scratch:
        tried = [
            _try(
                form,
                Path(scratch) / f"{position}",
                name,
                with_interfaces(form, files, config.interface, source.calibration),
                splits.validation,
                expected,
            )
            for position, (name, files) in enumerate(form.variants(source))
        ]
    if not tried:
        raise ExportError("the format made no file")
    best = max(tried, key=lambda variant: (variant.answers.metrics.accuracy, -variant.distance))
    paths = [stage.run.write(folder, f"student.{form.name}{suffix}", data) for suffix, data in best.files.items()]
    task = splits.task
    parts = {"validation": splits.validation, "reference": splits.reference}
    reference, run = FORMATS["fp32"](config).open(fp32, 1), form.open(paths[0], 1)
    parity = measure_parity(reference, run, parts, task.inputs)
    if form.precision == "fp16":
        require_fp16_parity(parity)
    first, *beside = (str(path.relative_to(stage.run.root)) for path in paths)
    return ConvertedModel(
        path=first,
        beside=tuple(beside),
        sha256=file_digest(paths[0]),
        size_bytes=sum(map(len, best.files.values())),
        precision=form.precision,
        opset=config.opset,
        parity=parity,
        format=form.name,
        runtime=form.runtime,
        variant=best.name,
        tried={variant.name: variant.answers.metrics.accuracy for variant in tried if variant.name},
        validation=best.answers.metrics,
        lost=int((expected.right & ~best.answers.right).sum()),
        gained=int((best.answers.right & ~expected.right).sum()),
        arithmetic=best.arithmetic,
    )


def with_interfaces(
    form: Format, files: dict[str, bytes], interface: Interface, examples: np.ndarray
) -> dict[str, bytes]:
    """Add the configured interface to a format's files if ONNX Runtime opens them; other runtimes take them raw."""
    if interface_of(form.runtime, interface) == "raw":
        return files
    return {**files, form.suffix: with_interface(files[form.suffix], interface, examples[:64])}


def _try(
    form: Format, folder: Path, name: str, files: dict[str, bytes], validation: ImageSplit, expected: Answers
) -> _Variant:
    folder.mkdir()
    for suffix, data in files.items():
        (folder / f"model{suffix}").write_bytes(data)
    path = folder / f"model{next(iter(files))}"
    answers, arithmetic = _on_every_processor(form, path, validation)
    return _Variant(name, files, answers, float(np.abs(answers.logits - expected.logits).mean()), arithmetic)


def _on_every_processor(form: Format, path: Path, validation: ImageSplit) -> tuple[Answers, Arithmetic | None]:
    """Give the file's answers, from the kind of processor with the worse ones if kinds differ, and how they differ."""
    here, saturable = answers_of(form.open(path, 1), validation), form.saturable(path)
    if saturable is None:
        return here, None
    about = Arithmetic(saturable=saturable, measured_on=byte_products())
    if not saturable:
        return here, about
    try:
        elsewhere = answers_of(form.elsewhere(path, 1), validation)
    except ExportError as error:
        return here, about.model_copy(update={"unknown": str(error)})
    kinds = dict(
        zip(("saturating", "exact") if saturates_here() else ("exact", "saturating"), (here, elsewhere), strict=True)
    )
    accuracy = {kind: answers.metrics.accuracy for kind, answers in kinds.items()}
    worse = min(here, elsewhere, key=lambda answers: answers.metrics.accuracy)
    return worse, about.model_copy(update={"accuracy": accuracy})
