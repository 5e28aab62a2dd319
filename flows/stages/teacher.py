"""Load the teacher's weights if the configuration names a file, else train them."""

from typing import Any

from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.results import DataResult, Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.training import curve_csv, epoch_ticker
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.networks.cost import Cost, measure_cost
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import make_teacher
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.training.fit import FitResult, Supervised, fit
from edgestill.pipeline.training.metrics import evaluate


class Teacher(Stage[TeacherResult]):
    name = "teacher"
    result = TeacherResult
    to_change = "teacher.architecture or teacher.training"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        return results.of(DataResult), context.config.teacher

    def work(self, context: StageContext, results: Results) -> TeacherResult:
        teacher, device = make_teacher(context.config.teacher), context.device
        splits = context.splits()
        task = splits.task
        cost = _cost(teacher, task)
        if teacher.is_trained:
            network = teacher.read(task)
            found: dict[str, Any] = {"validation": evaluate(network.to(device), splits.validation, device)}
        else:
            with drawn_from(context.seed("teacher", "weights")):
                network = teacher.build(task)
            fitted = _trained(context, network, splits)
            found = {"validation": fitted.best, "best_epoch": fitted.best_epoch, "curve": fitted.curve}
            context.run.write("teacher", "curve.csv", curve_csv(fitted.curve))
        context.run.write("teacher", WEIGHTS, weights_bytes(network, teacher.metadata(task)))
        return TeacherResult(
            **{"best_epoch": None, "curve": ()} | found, trained_here=not teacher.is_trained, cost=cost
        )

    def sentence(self, result: TeacherResult) -> str:
        how = f"trained, best at epoch {result.best_epoch}" if result.trained_here else "loaded"
        return f"{how}; {result.validation.accuracy:.2%} on validation, {result.cost.params:,} parameters"


def _cost(teacher: Any, task: Task) -> Cost:
    counted = teacher.count(task)
    if counted is None:
        return measure_cost(lambda: teacher.build(task), task.input_shape, task.input_dtype)
    return Cost(params=counted[0], flops=counted[1])


def _trained(context: StageContext, network: Any, splits: Splits) -> FitResult:
    config = context.config.teacher.training
    return fit(
        network,
        Supervised(),
        splits.train.labelled(),
        splits.validation,
        config,
        seed=context.seed("teacher"),
        device=context.device,
        augmentation=Augmentation(splits.augment),
        observe=epoch_ticker(context, config.epochs),
        save=context.saver("teacher"),
        resume=context.saved("teacher"),
        compute=context.compute,
    )
