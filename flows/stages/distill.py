"""Distill the student; keep its weights from the epoch best on validation."""

import copy
from typing import Any

from torch import nn

from edgestill.distill.result import DistillResult, TuneResult
from edgestill.distill.train import caches_teacher
from edgestill.distill.tune import with_hyperparameters
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.students import METHODS, chosen
from edgestill.flows.stages.training import curve_csv, driven
from edgestill.pipeline.networks.cost import Cost, measure_cost
from edgestill.pipeline.runs.checkpoint import state_bytes, weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.tournament import TournamentResult


class Distill(Stage[DistillResult]):
    name = "distill"
    result = DistillResult

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        winner, best = results.of(TournamentResult).winner, results.of(TuneResult).best
        return results.of(TeacherResult), winner, context.config.distill, best, *context.start_digests

    def work(self, context: StageContext, results: Results) -> DistillResult:
        config = with_hyperparameters(context.config.distill, results.of(TuneResult).best)
        splits, winner = context.splits(), results.of(TournamentResult).winner
        distilled = driven(context, "distill", chosen(context, results).architecture, splits, config)
        fitted, recipe = distilled.fitted, config.recipe()
        context.run.write("distill", WEIGHTS, weights_bytes(distilled.student))
        context.run.write("distill", METHODS, state_bytes(distilled.state))
        context.run.write("distill", "curve.csv", curve_csv(fitted.curve))
        return DistillResult(
            architecture=winner.architecture,
            methods=tuple(method.model_dump(mode="json") for method in config.methods),
            learning_rate=config.training.learning_rate,
            weight_decay=config.training.weight_decay,
            teacher_cached=caches_teacher(recipe, splits, config.training.views),
            validation=fitted.best,
            cost=_cost_of_what_ships(distilled.student, winner.cost, splits.task),
            best_epoch=fitted.best_epoch,
            stopped_early=fitted.stopped_early,
            curve=fitted.curve,
            measures=distilled.measures,
            exhibits=distilled.exhibits,
        )

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        training, trainings = context.config.distill.training, context.config.distill.driver.trainings
        weights = 4 * sum(parameter.numel() for parameter in probes.student().parameters())
        sooner = ", fewer if it stops early" if training.patience else ""
        each = f"{trainings} trainings of " if trainings > 1 else ""
        seconds = probes.taught_s(trainings * training.epochs, trainings=trainings)
        return Estimate(seconds, weights, f"{each}{training.epochs} epochs{sooner}")

    def sentence(self, result: DistillResult) -> str:
        stopped = ", stopped early" if result.stopped_early else ""
        accuracy = f"{result.validation.words} on validation"
        return f"{accuracy} at epoch {result.best_epoch} of {len(result.curve)}{stopped}"


def _cost_of_what_ships(network: nn.Module, searched: Cost, task: Task) -> Cost:
    """Cost of the searched student with parameters and FLOPs counted again: a method's head may have added some."""
    counted = measure_cost(lambda: copy.deepcopy(network).cpu(), task.input_shape, task.input_dtype)
    return searched.model_copy(update={"params": counted.params, "flops": counted.flops})
