"""Remove channels of the distilled student and fine-tune the rest with the same recipe.

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
from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.students import METHODS, Student, distilled, methods_state, networks
from edgestill.flows.stages.training import classifier_of, curve_csv, fine_tuning, taught, with_classifier_of
from edgestill.pipeline.data.splits import Batch, Splits
from edgestill.pipeline.networks.cost import Cost, measure_cost
from edgestill.pipeline.runs.checkpoint import state_bytes, weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.training.metrics import evaluate

_BATCH = 64  # examples a batch for taylor's squared gradients


class Prune(Stage[PruneResult]):
    name = "prune"
    result = PruneResult

    def takes_part(self, config: RunConfig) -> bool:
        return config.prune.enabled

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config, best = context.config, results.of(TuneResult).best
        return results.of(TeacherResult), results.of(DistillResult), config.prune, config.distill, best

    def work(self, context: StageContext, results: Results) -> PruneResult:
        return _pruned(context, distilled(context, results), results)

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        config = context.config.prune
        epochs = config.epochs + (config.rounds - 1) * config.round_epochs
        seconds = probes.taught_s(epochs, trainings=config.rounds)
        return Estimate(seconds, note=f"{epochs} epochs of fine-tuning, of the whole student's speed")

    def sentence(self, result: PruneResult) -> str:
        if result.refused is not None or result.cost is None or result.pruned is None or result.tuned is None:
            return f"not pruned: {result.refused}; the distilled student ships"
        rounds = f" in {result.rounds} rounds" if result.rounds > 1 else ""
        return (
            f"{result.cost.params / result.cost_before.params:.1%} of the parameters by {result.method}{rounds}; on "
            f"validation {result.before.words}, pruned {result.pruned.words}, fine-tuned "
            f"{result.tuned.words} at epoch {result.best_epoch} of {len(result.curve)}"
        )


def _pruned(context: StageContext, whole: Student, results: Results) -> PruneResult:
    """Prune and fine-tune the student, kept at its best on validation; a failed pruning leaves it as it is."""
    config, splits = context.config.prune, context.splits()
    student, shipped = networks(context, whole, splits.task)
    balanced = context.config.distill.training.metric == "balanced_accuracy"
    about = {
        "method": config.method,
        "keep": config.keep,
        "rounds": config.rounds,
        "before": evaluate(shipped.to(context.device), splits.validation, context.device, balanced=balanced),
        "cost_before": results.of(DistillResult).cost,
    }
    recipe = with_hyperparameters(context.config.distill, results.of(TuneResult).best)
    state = methods_state(context, whole)
    try:
        narrowed, start, state, taken = _rounds(context, recipe, splits, student, shipped, state)
    except PruningError as error:
        return PruneResult(**about, refused=str(error))
    recipe = fine_tuning(recipe, config.epochs, config.learning_rate_factor)
    before = make_recipe(recipe.methods).deployable(copy.deepcopy(narrowed))
    before.load_state_dict(start)
    pruned = evaluate(before.to(context.device), splits.validation, context.device, balanced=balanced)
    result = taught(context, "prune", narrowed, splits, recipe, start, state=state)
    context.run.write("prune", WEIGHTS, weights_bytes(result.student))
    context.run.write("prune", METHODS, state_bytes(result.state))
    context.run.write("prune", "curve.csv", curve_csv(result.fitted.curve))
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
    context: StageContext,
    recipe: DistillConfig,
    splits: Splits,
    student: nn.Module,
    shipped: nn.Module,
    state: dict[str, Any],
) -> tuple[nn.Module, dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Prune in rounds, with a short fine-tuning between them; after a kill, go on from the saved cuts and trainings.

    Returns:
        The narrowed student; its shipped form's weights and the methods' state, both before the last fine-tuning; and
        over all rounds the changed widths, the share of channels removed, and if residual sums were pruned.
    """
    config, whole = context.config.prune, sum(parameter.numel() for parameter in shipped.parameters())
    widths: dict[str, tuple[int, int]] = {}
    start: dict[str, Tensor] = {}
    stays, sums = 1.0, False
    for number, share in enumerate(config.shares, 1):
        cut, start = _cut(context, number, splits, student, shipped, share * whole)
        student = narrow(student.cpu(), cut["widths"])
        widths |= cut["widths"]
        stays, sums = stays * (1 - cut["channels_removed"]), sums or cut["sums_pruned"]
        if number < config.rounds:
            short = fine_tuning(recipe, config.round_epochs, config.learning_rate_factor)
            trained = taught(context, "prune", student, splits, short, start, f".round{number}.pt", state)
            shipped, state = trained.student, trained.state
    return student, start, state, {"widths": widths, "channels_removed": 1 - stays, "sums_pruned": sums}


def _cut(
    context: StageContext, number: int, splits: Splits, student: nn.Module, shipped: nn.Module, params: float
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Choose a round's channels, once a run; return facts on the cut, and the shipped form's weights after it."""
    config = context.config.prune
    file = f".cut{number}.pt"
    if context.saved("prune", file) is None:
        context.tick(0, config.epochs, f"{config.method}: choosing channels, round {number} of {config.rounds}")
        batches, seed = scoring_batches(context, splits, config), context.seed("prune", "speed-up")
        found = prune(student, classifier_of(shipped), config, batches, seed, params)
        narrowed = narrow(copy.deepcopy(student).cpu(), found.widths)
        narrowed.load_state_dict(found.state)
        about = {n: getattr(found, n) for n in ("widths", "channels_removed", "sums_pruned")}
        weights = with_classifier_of(context, narrowed, shipped).state_dict()
        context.saver("prune", file)({"about": about, "weights": weights})
    cut = context.saved("prune", file)
    assert cut is not None, "it was saved"
    return cut["about"], cut["weights"]


def scoring_batches(context: StageContext, splits: Splits, config: PruneConfig) -> list[Batch]:
    """Reference examples for `taylor`'s gradients, drawn by seed."""
    images = splits.reference.labelled()
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(context.seed("prune", "images")))
    return [images.batch(index) for index in torch.split(chosen[: config.score_images], _BATCH)]


def _cost(network: nn.Module, task: Task) -> Cost:
    """Cost of the pruned student, counted anew: the search measured bytes, memory and latency of the whole student."""
    return measure_cost(lambda: copy.deepcopy(network).cpu(), task.input_shape, task.input_dtype)
