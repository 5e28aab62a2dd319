"""The stage that takes channels from the distilled student and fine-tunes what is left with the same recipe.

The distillation's learning curve says what the pruned student's fine-tuning is to be held against, so nothing of its
result is overwritten: `prune/` has its own weights and its own curve.
"""

import copy
import json
from typing import Any

import torch
from torch import Tensor, nn

from distill.config import DistillConfig, PruneConfig
from distill.narrow import narrow
from distill.prune import PruningError, prune
from distill.recipe import make_recipe
from distill.result import DistillResult, PruneResult, TuneResult
from distill.tune import with_hyperparameters
from flows.stage import WEIGHTS, Stage, unpruned_student
from flows.stages import curve_csv, taught
from pipeline.checkpoint import read_weights, weights_bytes
from pipeline.cost import Cost, measure_cost
from pipeline.data import Batch, Splits
from pipeline.metrics import evaluate
from pipeline.network import Classifier
from pipeline.task import Task

# What a kill during fine-tuning leaves for the next process: which channels are left, and the weights before it.
_CUT, _CUT_WEIGHTS = ".cut.json", ".cut.safetensors"
_BATCH = 64  # of the examples whose gradients taylor squares


def prune_student(stage: Stage, distilled: DistillResult, tuned: TuneResult) -> PruneResult:
    """The pruned student's weights, best on validation; a pruning that cannot be done leaves the student as it is."""
    config, splits = stage.config.prune, stage.splits()
    student, shipped = unpruned_student(stage, distilled.architecture, splits.task)
    about = {
        "method": config.method,
        "keep": config.keep,
        "before": evaluate(shipped.to(stage.device), splits.validation, stage.device),
        "cost_before": distilled.cost,
    }
    try:
        cut, start = _cut(stage, config, splits, student, shipped)
    except PruningError as error:
        return PruneResult(**about, refused=str(error))
    narrowed = narrow(student.cpu(), cut["widths"])
    recipe = fine_tuning(
        with_hyperparameters(stage.config.distill, tuned.best), config.epochs, config.learning_rate_factor
    )
    before = make_recipe(recipe.methods).deployable(copy.deepcopy(narrowed))
    before.load_state_dict(start)
    pruned = evaluate(before.to(stage.device), splits.validation, stage.device)
    result = taught(stage, "prune", narrowed, splits, recipe, start)
    stage.run.write("prune", WEIGHTS, weights_bytes(result.student))
    stage.run.write("prune", "curve.csv", curve_csv(result.fitted.curve))
    return PruneResult(
        **about,
        **cut,
        refused=None,
        cost=_cost(result.student, splits.task),
        pruned=pruned,
        tuned=result.fitted.best,
        learning_rate=recipe.training.learning_rate,
        best_epoch=result.fitted.best_epoch,
        stopped_early=result.fitted.stopped_early,
        curve=result.fitted.curve,
    )


def fine_tuning(config: DistillConfig, epochs: int, learning_rate_factor: float) -> DistillConfig:
    """The distillation's own recipe, for so many epochs and from another learning rate."""
    rate = config.training.learning_rate * learning_rate_factor
    training = config.training.model_copy(update={"epochs": epochs, "learning_rate": rate})
    return config.model_copy(update={"training": training})


def _cut(
    stage: Stage, config: PruneConfig, splits: Splits, student: nn.Module, shipped: nn.Module
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Which channels are left, and the weights of what would ship before fine-tuning; once a run."""
    record, weights = stage.run.path("prune", _CUT), stage.run.path("prune", _CUT_WEIGHTS)
    if not record.exists():
        stage.tick(0, config.epochs, f"{config.method}: choosing channels")
        batches = scoring_batches(stage, splits, config)
        found = prune(student, _classifier(shipped), config, batches, stage.seed("prune", "speed-up"))
        narrowed = narrow(copy.deepcopy(student).cpu(), found.widths)
        narrowed.load_state_dict(found.state)
        before = with_classifier_of(stage, narrowed, shipped)
        stage.run.write("prune", _CUT_WEIGHTS, weights_bytes(before))
        about = {n: getattr(found, n) for n in ("widths", "channels_removed", "sums_pruned")}
        stage.run.write("prune", _CUT, json.dumps(about))  # last: where it is, the weights are
    return json.loads(record.read_text(encoding="utf-8")), read_weights(weights)


def scoring_batches(stage: Stage, splits: Splits, config: PruneConfig) -> list[Batch]:
    """The reference examples that `taylor` takes gradients on."""
    images = splits.reference.labelled()
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(stage.seed("prune", "images")))
    return [images.batch(index) for index in torch.split(chosen[: config.score_images], _BATCH)]


def with_classifier_of(stage: Stage, student: nn.Module, shipped: nn.Module) -> nn.Module:
    """The student as it would ship, with the weights of the classifier, or of a method's head, of one that did."""
    made = make_recipe(stage.config.distill.methods).deployable(student)
    _classifier(made).load_state_dict(_classifier(shipped).state_dict())
    return made


def _classifier(network: nn.Module) -> nn.Module:
    assert isinstance(network, Classifier)
    return network.get_classifier()


def _cost(network: nn.Module, task: Task) -> Cost:
    """Counted; what the search measured of the whole student (bytes, memory, latency) is not the pruned one's."""
    return measure_cost(lambda: copy.deepcopy(network).cpu(), task.input_shape, task.input_dtype)
