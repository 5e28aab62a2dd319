"""The qat stage: fine-tune the student for INT8 if its INT8 files lose more accuracy than the gate allows.

The student shipped in fp32 and fp16 stays as it is: only the INT8 files are made again, from the fine-tuned weights,
and each is kept if it is better than the one before. The profile stage then judges the files.
"""

import itertools
from typing import Literal

from torch import nn

from edgestill.distill.compression.fake_quant import FakeQuantError, fake_quantized, without_fake_quant
from edgestill.distill.config import DistillConfig
from edgestill.distill.result import DistillResult, TuneResult
from edgestill.distill.train import Distilled
from edgestill.distill.tune import with_hyperparameters
from edgestill.export.calibration import calibration_examples
from edgestill.export.formats import FORMATS, Source
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.result import ConvertedModel, ConvertResult
from edgestill.flows.formats import answers_of, try_format
from edgestill.flows.heads import heads
from edgestill.flows.pruning import fine_tuning, with_classifier_of
from edgestill.flows.stage import Stage, shipped_student, state_that_shipped
from edgestill.flows.stages import curve_csv, taught
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.errors import TrainingError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.training.metrics import Metrics
from edgestill.pipeline.training.state import EpochRecord

_BATCHES = 8  # to set the first ranges; they follow the training from there
_FINE_TUNED = "student.onnx"  # the fine-tuned weights in fp32, source of the INT8 files


class QatFormat(Frozen):
    """An INT8 file before and after fine-tuning, on validation."""

    before: Metrics
    after: Metrics | None  # None: none could be made
    kept: Literal["before", "after"]
    passes: bool  # True if the kept one loses no more than the gate allows
    reason: str = ""  # why none could be made


class QatResult(Frozen):
    """Result of fine-tuning for INT8; `formats` holds the formats it was done for."""

    mode: Literal["auto", "always"]
    allowed: float  # max_accuracy_drop
    fp32: Metrics  # of the file, on validation
    formats: dict[str, QatFormat] = {}
    refused: str | None = None  # why the student could not be fine-tuned
    fine_tuned: Metrics | None = None  # in torch, with fake quantisation
    learning_rate: float | None = None
    best_epoch: int | None = None
    curve: tuple[EpochRecord, ...] = ()
    models: dict[str, ConvertedModel] = {}  # files to take the place of the ones before

    def applied_to(self, converted: ConvertResult) -> ConvertResult:
        """Return the export's result with the INT8 files improved by fine-tuning."""
        return converted.model_copy(update={"others": {**converted.others, **self.models}})


def fine_tune_int8(stage: Stage, distilled: DistillResult, tuned: TuneResult, converted: ConvertResult) -> QatResult:
    """Fine-tune with fake quantisation if the mode or the gate calls for it, and make the INT8 files again."""
    config, allowed = stage.config.qat, stage.config.export.gate.max_accuracy_drop
    assert config.mode != "never", "the chain leaves the stage out"
    fp32 = _validation(converted.student)
    about = {"mode": config.mode, "allowed": allowed, "fp32": fp32}
    short = {
        name: _validation(model)
        for name, model in converted.others.items()
        if model.precision == "int8" and (config.mode == "always" or _misses(_validation(model), fp32, allowed))
    }
    if not short:
        return QatResult.model_validate(about)
    splits = stage.splits()
    recipe = fine_tuning(
        with_hyperparameters(stage.config.distill, tuned.best), config.epochs, config.learning_rate_factor
    )
    try:
        done = _fine_tuned(stage, distilled, recipe, splits)
    except (FakeQuantError, TrainingError) as error:  # the files made before are still worth judging
        kept = {name: _kept(before, None, fp32, allowed, str(error)) for name, before in short.items()}
        return QatResult.model_validate(about | {"formats": kept, "refused": str(error)})
    stage.run.write("qat", "curve.csv", curve_csv(done.fitted.curve))
    formats, models = _made_again(stage, without_fake_quant(done.student), splits, converted, short)
    return QatResult.model_validate(
        about
        | {
            "formats": formats,
            "fine_tuned": done.fitted.best,
            "learning_rate": recipe.training.learning_rate,
            "best_epoch": done.fitted.best_epoch,
            "curve": done.fitted.curve,
            "models": models,
        }
    )


def _fine_tuned(stage: Stage, distilled: DistillResult, recipe: DistillConfig, splits: Splits) -> Distilled:
    """Fine-tune the student with fake quantisation; give it at its best epoch on validation."""
    student, shipped = shipped_student(stage, distilled.architecture, splits.task)
    has_head = bool(heads(stage.config.distill))
    begun_on = itertools.islice(splits.reference.batches(64), _BATCHES)
    bits = stage.config.export.weight_bits
    quantized = fake_quantized(student, begun_on, classifier=not has_head, weight_bits=bits)
    start = with_classifier_of(stage, quantized, shipped).state_dict() if has_head else None
    return taught(stage, "qat", quantized, splits, recipe, start, state=state_that_shipped(stage))


def _made_again(
    stage: Stage, network: nn.Module, splits: Splits, converted: ConvertResult, short: dict[str, Metrics]
) -> tuple[dict[str, QatFormat], dict[str, ConvertedModel]]:
    """Make the INT8 files of the fine-tuned network; keep the better of each and the one before."""
    config, task = stage.config.export, splits.task
    fp32, shipped = _validation(converted.student), stage.run.root / converted.student.path
    data = to_onnx(network, task.inputs, config.opset)
    source = Source(
        onnx=stage.run.write("qat", _FINE_TUNED, data),
        network=network,
        task=task,
        calibration=calibration_examples(splits.reference, config.calibration.examples),
    )
    expected = answers_of(runner(shipped), splits.validation)
    formats: dict[str, QatFormat] = {}
    models: dict[str, ConvertedModel] = {}
    for done, (name, before) in enumerate(short.items()):
        stage.tick(done, len(short), name)
        made = try_format(stage, FORMATS[name](config), source, splits, expected, folder="qat", fp32=shipped)
        model, reason = (None, made) if isinstance(made, str) else (made, "")
        after = None if model is None else _validation(model)
        formats[name] = _kept(before, after, fp32, config.gate.max_accuracy_drop, reason)
        if model is not None and formats[name].kept == "after":
            models[name] = model
    return formats, models


def _kept(before: Metrics, after: Metrics | None, fp32: Metrics, allowed: float, reason: str = "") -> QatFormat:
    better = after is not None and after.accuracy > before.accuracy
    chosen = after if after is not None and better else before
    return QatFormat(
        before=before,
        after=after,
        kept="after" if better else "before",
        passes=not _misses(chosen, fp32, allowed),
        reason=reason,
    )


def _misses(found: Metrics, fp32: Metrics, allowed: float) -> bool:
    return fp32.accuracy - found.accuracy > allowed + 1e-9


def _validation(model: ConvertedModel) -> Metrics:
    assert model.validation is not None, "export measures every file of the student"
    return model.validation
