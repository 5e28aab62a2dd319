"""The prune stage: remove channels of the distilled student and fine-tune the rest with the same recipe.

The fine-tuning is to be compared with the distillation's learning curve, so nothing of the distillation's result is
overwritten: `prune/` has its own weights and its own curve.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from edgestill.distill.compression.narrow import narrow
from edgestill.distill.compression.prune import PruningError, prune
from edgestill.distill.config import DistillConfig, PruneConfig
from edgestill.distill.recipe import make_recipe
from edgestill.distill.result import DistillResult, PruneResult, TuneResult
from edgestill.distill.tune import with_hyperparameters
from edgestill.flows.stages.context import METHODS, WEIGHTS, Stage, method_state, saved, saver, unpruned_student
from edgestill.flows.stages.distill import curve_csv, taught
from edgestill.pipeline.data.splits import Batch, Splits
from edgestill.pipeline.networks.cost import Cost, measure_cost
from edgestill.pipeline.networks.network import Classifier
from edgestill.pipeline.runs.checkpoint import state_bytes, weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.metrics import evaluate

_BATCH = 64  # examples a batch for taylor's squared gradients


def prune_student(stage: Stage, distilled: DistillResult, tuned: TuneResult) -> PruneResult:
    """Prune and fine-tune the student, kept at its best on validation; a failed pruning leaves it as it is."""
    config, splits = stage.config.prune, stage.splits()
    student, shipped = unpruned_student(stage, distilled.architecture, splits.task)
    about = {
        "method": config.method,
        "keep": config.keep,
        "rounds": config.rounds,
        "before": evaluate(shipped.to(stage.device), splits.validation, stage.device),
        "cost_before": distilled.cost,
    }
    recipe = with_hyperparameters(stage.config.distill, tuned.best)
    try:
        narrowed, start, state, taken = _rounds(stage, recipe, splits, student, shipped)
    except PruningError as error:
        return PruneResult(**about, refused=str(error))
    recipe = fine_tuning(recipe, config.epochs, config.learning_rate_factor)
    before = make_recipe(recipe.methods).deployable(copy.deepcopy(narrowed))
    before.load_state_dict(start)
    pruned = evaluate(before.to(stage.device), splits.validation, stage.device)
    result = taught(stage, "prune", narrowed, splits, recipe, start, state=state)
    stage.run.write("prune", WEIGHTS, weights_bytes(result.student))
    stage.run.write("prune", METHODS, state_bytes(result.state))
    stage.run.write("prune", "curve.csv", curve_csv(result.fitted.curve))
    return PruneResult(
        **about,
        **taken,
        refused=None,
        cost=_cost(result.student, splits.task),
        pruned=pruned,
        tuned=result.fitted.best,
        learning_rate=recipe.training.learning_rate,
        best_epoch=result.fitted.best_epoch,
        stopped_early=result.fitted.stopped_early,
        curve=result.fitted.curve,
    )


def _rounds(
    stage: Stage, recipe: DistillConfig, splits: Splits, student: nn.Module, shipped: nn.Module
) -> tuple[nn.Module, dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Prune in rounds, with a short fine-tuning between them; after a kill, go on from the saved cuts and trainings.

    Returns:
        The narrowed student; its shipped form's weights and the methods' state, both before the last fine-tuning; and
        over all rounds the changed widths, the share of channels removed, and if residual sums were pruned.
    """
    config, whole = stage.config.prune, sum(parameter.numel() for parameter in shipped.parameters())
    widths: dict[str, tuple[int, int]] = {}
    start: dict[str, Tensor] = {}
    state = method_state(stage, "distill")
    stays, sums = 1.0, False
    for number, share in enumerate(config.shares, 1):
        cut, start = _cut(stage, number, splits, student, shipped, share * whole)
        student = narrow(student.cpu(), cut["widths"])
        widths |= cut["widths"]
        stays, sums = stays * (1 - cut["channels_removed"]), sums or cut["sums_pruned"]
        if number < config.rounds:
            short = fine_tuning(recipe, config.round_epochs, config.learning_rate_factor)
            trained = taught(stage, "prune", student, splits, short, start, f".round{number}.pt", state)
            shipped, state = trained.student, trained.state
    return student, start, state, {"widths": widths, "channels_removed": 1 - stays, "sums_pruned": sums}


def fine_tuning(config: DistillConfig, epochs: int, learning_rate_factor: float) -> DistillConfig:
    """The distillation's own recipe with another number of epochs and a scaled learning rate."""
    rate = config.training.learning_rate * learning_rate_factor
    training = config.training.model_copy(update={"epochs": epochs, "learning_rate": rate})
    return config.model_copy(update={"training": training})


def _cut(
    stage: Stage, number: int, splits: Splits, student: nn.Module, shipped: nn.Module, params: float
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Choose a round's channels, once a run; return facts on the cut, and the shipped form's weights after it."""
    config = stage.config.prune
    file = f".cut{number}.pt"
    if saved(stage, "prune", file) is None:
        stage.tick(0, config.epochs, f"{config.method}: choosing channels, round {number} of {config.rounds}")
        batches, seed = scoring_batches(stage, splits, config), stage.seed("prune", "speed-up")
        found = prune(student, _classifier(shipped), config, batches, seed, params)
        narrowed = narrow(copy.deepcopy(student).cpu(), found.widths)
        narrowed.load_state_dict(found.state)
        about = {n: getattr(found, n) for n in ("widths", "channels_removed", "sums_pruned")}
        weights = with_classifier_of(stage, narrowed, shipped).state_dict()
        saver(stage, "prune", file)({"about": about, "weights": weights})
    cut = saved(stage, "prune", file)
    assert cut is not None, "it was saved"
    return cut["about"], cut["weights"]


def scoring_batches(stage: Stage, splits: Splits, config: PruneConfig) -> list[Batch]:
    """Reference examples for `taylor`'s gradients, drawn by seed."""
    images = splits.reference.labelled()
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(stage.seed("prune", "images")))
    return [images.batch(index) for index in torch.split(chosen[: config.score_images], _BATCH)]


def with_classifier_of(stage: Stage, student: nn.Module, shipped: nn.Module) -> nn.Module:
    """The student's shipped form, with the weights of the classifier (or a method's head) taken from `shipped`."""
    made = make_recipe(stage.config.distill.methods).deployable(student)
    _classifier(made).load_state_dict(_classifier(shipped).state_dict())
    return made


def _classifier(network: nn.Module) -> nn.Module:
    assert isinstance(network, Classifier)
    return network.get_classifier()


def _cost(network: nn.Module, task: Task) -> Cost:
    """Cost of the pruned student, counted anew: the search measured bytes, memory and latency of the whole student."""
    return measure_cost(lambda: copy.deepcopy(network).cpu(), task.input_shape, task.input_dtype)
