"""Fine-tune the student for INT8 if its INT8 files lose more accuracy than the gate allows.

The student shipped in fp32 and fp16 stays as it is: only the INT8 files are made again, from the fine-tuned weights,
and each is kept if it is better than the one before. The profile stage then judges the files.
"""

import itertools
from functools import partial
from typing import Any

from torch import nn

from edgestill.distill.compression.fake_quant import FakeQuantError, fake_quantized, without_fake_quant
from edgestill.distill.config import DistillConfig
from edgestill.distill.distilled import Distilled
from edgestill.distill.recipe import make_recipe
from edgestill.distill.result import TuneResult
from edgestill.distill.tune import with_hyperparameters
from edgestill.export.build import Folder, Reference, source_of, try_format
from edgestill.export.evaluate import answers_of
from edgestill.export.formats import FORMATS
from edgestill.export.gate import loses_too_much
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.result import ConvertedModel, ConvertResult
from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.heads import heads
from edgestill.flows.stages.results import QatFormat, QatResult, Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.students import Student, methods_state, networks, shipped
from edgestill.flows.stages.training import curve_csv, fine_tuning, taught, with_classifier_of
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.errors import TrainingError
from edgestill.pipeline.figures import duration
from edgestill.pipeline.input_kind import INPUT_KINDS
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.training.metrics import Metrics

_BATCHES = 8  # to set the first ranges; they follow the training from there
_FAKE_QUANT_FACTOR = 2.0  # of a training step's time, about
_FINE_TUNED = "student.onnx"  # the fine-tuned weights in fp32, source of the INT8 files


class Qat(Stage[QatResult]):
    name = "qat"
    result = QatResult

    def takes_part(self, config: RunConfig) -> bool:
        return config.qat.mode != "never" and not INPUT_KINDS[config.data.kind].continues

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config, best = context.config, results.of(TuneResult).best
        recipe = (config.qat, config.distill, best, config.export.gate.max_accuracy_drop)
        return results.of(TeacherResult), results.shipped_student, results.of(ConvertResult), *recipe

    def work(self, context: StageContext, results: Results) -> QatResult:
        return _fine_tuned_where_short(context, results)

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        config = context.config.qat
        seconds = _FAKE_QUANT_FACTOR * probes.taught_s(config.epochs)
        if config.mode == "always":
            return Estimate(seconds, note=f"{config.epochs} epochs")
        return Estimate(0.0, note=f"{duration(seconds)} more if an INT8 file loses too much accuracy")

    def sentence(self, result: QatResult) -> str:
        if not result.formats:
            return f"not needed: no INT8 file loses more than {100 * result.allowed:g} points on validation"
        if result.refused is not None:
            return f"not done: {result.refused}"
        parts = []
        for name, found in result.formats.items():
            after = f"no file ({found.reason})" if found.after is None else found.after.words
            verdict = f"{found.kept} is kept and {'passes' if found.passes else 'still misses'} the gate"
            parts.append(f"{name} {found.before.words} before, {after} after: {verdict}")
        return f"fp32 {result.fp32.words} on validation, {'; '.join(parts)}"


def _fine_tuned_where_short(context: StageContext, results: Results) -> QatResult:
    """Fine-tune with fake quantisation if the mode or the gate calls for it, and make the INT8 files again."""
    config, allowed = context.config.qat, context.config.export.gate.max_accuracy_drop
    converted = results.of(ConvertResult)
    fp32 = _validation(converted.student)
    about = {"mode": config.mode, "allowed": allowed, "fp32": fp32}
    short = {
        name: _validation(model)
        for name, model in converted.others.items()
        if model.precision == "int8" and (config.mode == "always" or loses_too_much(_validation(model), fp32, allowed))
    }
    if not short:
        return QatResult.model_validate(about)
    splits = context.splits()
    tuned = with_hyperparameters(context.config.distill, results.of(TuneResult).best)
    recipe = fine_tuning(tuned, config.epochs, config.learning_rate_factor)
    try:
        done = _fine_tuned(context, shipped(context, results), recipe, splits)
    except (FakeQuantError, TrainingError) as error:  # the files made before are still worth judging
        kept = {name: _kept(before, None, fp32, allowed, str(error)) for name, before in short.items()}
        return QatResult.model_validate(about | {"formats": kept, "refused": str(error)})
    context.run.write("qat", "curve.csv", curve_csv(done.fitted.curve))
    formats, models = _made_again(context, without_fake_quant(done.student), splits, converted, short)
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


def _fine_tuned(context: StageContext, whole: Student, recipe: DistillConfig, splits: Splits) -> Distilled:
    """Fine-tune the student with fake quantisation; give it at its best epoch on validation."""
    if not recipe.driver.goes_on:
        raise FakeQuantError(f"driver {recipe.driver.name!r} leaves no teacher and labels to fine-tune by")
    for method in make_recipe(recipe.methods).methods:
        if method.ships_layers:
            raise FakeQuantError(f"a student taught by {method.name!r} ships layers that fine-tuning would begin anew")
    student, deployable = networks(context, whole, splits.task)
    has_head = bool(heads(context.config.distill))
    begun_on = itertools.islice(splits.reference.batches(64), _BATCHES)
    bits = context.config.export.weight_bits
    quantized = fake_quantized(student, begun_on, classifier=not has_head, weight_bits=bits)
    start = with_classifier_of(context, quantized, deployable).state_dict() if has_head else None
    return taught(context, "qat", quantized, splits, recipe, start, state=methods_state(context, whole))


def _made_again(
    context: StageContext, network: nn.Module, splits: Splits, converted: ConvertResult, short: dict[str, Metrics]
) -> tuple[dict[str, QatFormat], dict[str, ConvertedModel]]:
    """Make the INT8 files of the fine-tuned network; keep the better of each and the one before."""
    config, task = context.config.export, splits.task
    fp32, shipped = _validation(converted.student), context.run.root / converted.student.path
    data = to_onnx(network, task.inputs, config.opset)
    folder = Folder(context.run.root, partial(context.run.write, "qat"))
    source = source_of(network, folder.write(_FINE_TUNED, data), splits, config)
    reference = Reference(
        shipped, answers_of(runner(shipped), splits.validation, balanced=fp32.balanced_accuracy is not None)
    )
    formats: dict[str, QatFormat] = {}
    models: dict[str, ConvertedModel] = {}
    for done, (name, before) in enumerate(short.items()):
        context.tick(done, len(short), name)
        made = try_format(FORMATS[name], source, reference, splits, config, folder)
        model, reason = (None, made) if isinstance(made, str) else (made, "")
        after = None if model is None else _validation(model)
        formats[name] = _kept(before, after, fp32, config.gate.max_accuracy_drop, reason)
        if model is not None and formats[name].kept == "after":
            models[name] = model
    return formats, models


def _kept(before: Metrics, after: Metrics | None, fp32: Metrics, allowed: float, reason: str = "") -> QatFormat:
    better = after is not None and after.score > before.score
    chosen = after if after is not None and better else before
    return QatFormat(
        before=before,
        after=after,
        kept="after" if better else "before",
        passes=not loses_too_much(chosen, fp32, allowed),
        reason=reason,
    )


def _validation(model: ConvertedModel) -> Metrics:
    assert model.validation is not None, "export measures every file of the student"
    return model.validation
