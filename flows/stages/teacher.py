"""Load the teacher's weights if the configuration names a file, else train them; tell a useless teacher at once."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.results import DataResult, Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.training import curve_csv, epoch_ticker
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.errors import CheckpointError, ConfigError
from edgestill.pipeline.figures import milliseconds
from edgestill.pipeline.networks.cost import Cost, measure_cost
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import make_teacher
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.training.confusion import useless, weak_classes
from edgestill.pipeline.training.fit import FitResult, fit
from edgestill.pipeline.training.input_probes import Probe, probes_of
from edgestill.pipeline.training.metrics import wilson
from edgestill.pipeline.training.objective import Supervised
from edgestill.pipeline.training.teacher_check import TeacherFigures, doubt_of, fault_of, figures_of, reordered


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
        cost = _cost(teacher, task) if teacher.is_network else None
        about: dict[str, Any] = {"best_epoch": None, "curve": ()}
        if teacher.is_trained:
            network = _loaded(context, splits)
            figures = figures_of(network.to(device), splits.validation, device, task.num_classes, task.inputs.unit)
            _check(context, network, splits, figures)
            about["validation"] = figures.metrics
        else:
            if context.config.teacher.order is not None:
                raise ConfigError(
                    ["teacher.order is for given weights, and this teacher is trained here; leave it out"]
                )
            with drawn_from(context.seed("teacher", "weights")):
                network = teacher.build(task)
            fitted = _trained(context, network, splits)
            figures = figures_of(network, splits.validation, device, task.num_classes, task.inputs.unit)
            about = {"validation": fitted.best, "best_epoch": fitted.best_epoch, "curve": fitted.curve}
            context.run.write("teacher", "curve.csv", curve_csv(fitted.curve))
            _caution(context, useless(figures.confusion, "the teacher", "validation"))
        if task.inputs.has_classes:
            _caution(context, weak_classes(figures.confusion, task.labels, "the teacher", "validation"))
        context.run.write("teacher", WEIGHTS, weights_bytes(network, teacher.metadata(task)))
        return TeacherResult(
            **about,
            trained_here=not teacher.is_trained,
            cost=cost,
            confusion=figures.confusion,
            calibration_error=figures.calibration_error,
            ms_an_example=figures.ms_an_example if teacher.is_network else None,
        )

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        splits = probes.splits
        weights = 4 * sum(parameter.numel() for parameter in probes.teacher.parameters())
        teacher = make_teacher(context.config.teacher)
        if not teacher.is_network:
            return Estimate(0.0, weights, "answers read")
        if teacher.is_trained:
            return Estimate(probes.teacher_evaluated_s * len(splits.validation), weights, "loaded")
        training = context.config.teacher.training
        speed = probes.teacher_training
        seconds = speed.seconds(training.epochs, len(splits.train.labelled()), len(splits.validation))
        return Estimate(seconds, weights, f"trained for {training.epochs} epochs")

    def sentence(self, result: TeacherResult) -> str:
        how = f"trained, best at epoch {result.best_epoch}" if result.trained_here else "loaded"
        return f"{how}; {', '.join(_figures(result))}"


def _figures(result: TeacherResult) -> Iterator[str]:
    accuracy, n = result.validation.accuracy, result.validation.n
    low, high = wilson(accuracy, n)
    yield f"{accuracy:.2%} on validation [{100 * low:.1f}, {100 * high:.1f}]"
    if result.confusion is not None:  # not of an older run
        yield f"{result.confusion.most_frequent} {result.confusion.majority:.2%}"
    if result.calibration_error is not None:
        yield f"calibration error {result.calibration_error:.3f}"
    if result.ms_an_example is not None:
        yield f"{milliseconds(result.ms_an_example)} an example in torch"
    yield "answers in a file" if result.cost is None else f"{result.cost.params:,} parameters"


def _loaded(context: StageContext, splits: Splits) -> nn.Module:
    config, teacher = context.config.teacher, make_teacher(context.config.teacher)
    network = teacher.read(splits.task)
    teacher.meet(network, splits.parts)
    is_done = config.order is None or getattr(network, "order", None) is not None  # foreign networks order their own
    return network if is_done else reordered(network, config.order)


def _check(context: StageContext, network: nn.Module, splits: Splits, figures: TeacherFigures) -> None:
    """Refuse a given teacher that is useless or misread, or caution, as `teacher.check` says.

    Raises:
        CheckpointError: with the likely cause and the way out.
    """
    check = context.config.teacher.check
    if check == "off":
        return
    context.tick(0, 1, "checking the teacher on validation")
    fault = fault_of(
        network, splits.task, splits.validation, context.device, figures, _probes(context, network, splits)
    )
    if fault and check == "error":
        raise CheckpointError(f"{fault}; teacher.check=caution goes on with it as it is")
    _caution(context, fault or doubt_of(figures))


def _probes(context: StageContext, network: nn.Module, splits: Splits) -> list[Probe]:
    config = context.config
    if splits.task.kind != "image" or "inputs" not in make_teacher(config.teacher).gives:
        return []
    sections = {"teacher.size": config.teacher, "data.size": config.data}
    size_key = next((key for key, section in sections.items() if hasattr(section, "size")), "")
    return probes_of(network, splits.task, takes_mean=hasattr(config.teacher, "mean"), size_key=size_key)


def _caution(context: StageContext, sentence: str) -> None:
    if sentence:
        context.cautions.append(sentence)
        context.say(f"caution: {sentence}")


def _cost(teacher: Any, task: Task) -> Cost:
    counted = teacher.count(task)
    if counted is None:
        return measure_cost(lambda: teacher.build(task), task.input_shape, task.input_dtype)
    return Cost(params=counted[0], flops=counted[1])


def _trained(context: StageContext, network: nn.Module, splits: Splits) -> FitResult:
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
