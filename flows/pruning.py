"""The stage that takes channels from the distilled student and fine-tunes what is left with the same recipe.

The distillation's learning curve says what the pruned student's fine-tuning is to be held against, so nothing of its
result is overwritten: `prune/` has its own weights and its own curve.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from distill.config import DistillConfig, PruneConfig
from distill.narrow import narrow
from distill.prune import PruningError, prune
from distill.recipe import make_recipe
from distill.result import DistillResult, PruneResult, TuneResult
from distill.tune import with_hyperparameters
from flows.stage import METHODS, WEIGHTS, Stage, method_state, saved, saver, unpruned_student
from flows.stages import curve_csv, taught
from pipeline.checkpoint import state_bytes, weights_bytes
from pipeline.cost import Cost, measure_cost
from pipeline.data import Batch, Splits
from pipeline.metrics import evaluate
from pipeline.network import Classifier
from pipeline.task import Task

_BATCH = 64  # of the examples whose gradients taylor squares


def prune_student(stage: Stage, distilled: DistillResult, tuned: TuneResult) -> PruneResult:
    """The pruned student's weights, best on validation; a pruning that cannot be done leaves the student as it is."""
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
    """The narrowed student, the weights of what would ship and the methods' state, and what went in all rounds.

    Weights and state are those before the last fine-tuning. A kill leaves each round's cut and the state of the
    training behind it, from which the next process goes on.
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
    """The distillation's own recipe, for so many epochs and from another learning rate."""
    rate = config.training.learning_rate * learning_rate_factor
    training = config.training.model_copy(update={"epochs": epochs, "learning_rate": rate})
    return config.model_copy(update={"training": training})


def _cut(
    stage: Stage, number: int, splits: Splits, student: nn.Module, shipped: nn.Module, params: float
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Which channels are left after a round, and the weights of what would ship before fine-tuning; once a run."""
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
