"""Training of a student by the run's teacher, as distillation, pruning and fine-tuning for INT8 share it."""

import csv
import io
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.distilled import Distilled
from edgestill.distill.drivers import Lesson, Room
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.flows.stages.context import CHECKPOINT, StageContext
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.networks.network import Classifier
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.space import Architecture


def taught(
    context: StageContext,
    stage: str,
    student: nn.Module,
    splits: Splits,
    config: DistillConfig,
    start: Mapping[str, Tensor] | None = None,
    file: str = CHECKPOINT,
    state: Mapping[str, Any] | None = None,
    lesson: Lesson | None = None,
) -> Distilled:
    """Train the student by the run's teacher, going on from a state that the stage saved, if there is one.

    Args:
        start: weights of the student's shipped form, to begin from.
        file: the stage's file for the training's state.
        state: of the methods, from the student's training before this one.
        lesson: of a driver; its name stands in the seed and before the file. None: as the driver has left teacher and
            splits.
    """
    lesson = context.driver().afterwards(context.whole_splits()) if lesson is None else lesson
    file, named = (f".{lesson.name}_{file}", (lesson.name,)) if lesson.name else (file, ())
    distilled = distill(
        student,
        context.teacher(splits.task) if lesson.teacher is None else lesson.teacher,
        lesson.splits or splits,
        config,
        seed=context.seed(stage, *named),
        device=context.device,
        observe=epoch_ticker(context, config.training.epochs),
        save=context.saver(stage, file),
        resume=context.saved(stage, file),
        compute=context.compute,
        start=start,
        state=state,
    )
    context.cautions.extend(distilled.cautions)
    return distilled


def driven(context: StageContext, stage: str, winner: Architecture, splits: Splits, config: DistillConfig) -> Distilled:
    """Train fresh students as the configured driver says; each of its lessons goes on from its own saved state."""
    lessons: list[str] = []

    def learn(lesson: Lesson) -> Distilled:
        lessons.append(lesson.name)
        draw = len(set(lessons)) - 1 if lesson.draw is None else lesson.draw
        student = context.fresh_student(winner, splits.task, draw=draw)
        return taught(context, stage, student, splits, _config_of(lesson, config), lesson=lesson)

    driver = context.driver()
    driver.room = _room(context, stage, config.driver.name, winner, splits.task)
    return driver.run(learn, context.teacher(splits.task).to(context.device), context.whole_splits())


def _room(context: StageContext, stage: str, driver: str, winner: Architecture, task: Task) -> Room:
    """Surroundings of a driver, whose state is in a file of its own."""
    file = f".{driver}.pt"

    def students(count: int, different: bool) -> list[nn.Module]:
        found = [winner]
        if different:
            found = context.space.sample_different(count, random.Random(context.seed(stage, driver, "students")))
        chosen = itertools.islice(itertools.cycle(found), count)
        return [context.structure(architecture, task, draw) for draw, architecture in enumerate(chosen, 1)]

    return Room(
        device=context.device,
        seed=lambda *names: context.seed(stage, driver, *names),
        students=students,
        saved=lambda: context.saved(stage, file),
        save=context.saver(stage, file),
        tell=context.cautions.append,
        tick=context.tick,
    )


def _config_of(lesson: Lesson, config: DistillConfig) -> DistillConfig:
    """The configuration with the lesson's methods; checked, as they may not go with the configured ones."""
    methods = config.methods if lesson.instead is None else ()
    listed = [
        *(method.model_dump() for method in methods),
        *map(dict, lesson.instead or ()),
        *map(dict, lesson.methods),
    ]
    if listed == [method.model_dump() for method in config.methods]:
        return config
    return DistillConfig.model_validate(config.model_dump() | {"methods": listed})


def fine_tuning(config: DistillConfig, epochs: int, learning_rate_factor: float) -> DistillConfig:
    """The distillation's own recipe with another number of epochs and a scaled learning rate."""
    rate = config.training.learning_rate * learning_rate_factor
    training = config.training.model_copy(update={"epochs": epochs, "learning_rate": rate})
    return config.model_copy(update={"training": training})


def epoch_ticker(context: StageContext, epochs: int) -> Callable[[EpochRecord], None]:
    best = 0.0

    def observe(record: EpochRecord) -> None:
        nonlocal best
        best = max(best, record.validation_score)
        context.epoch_done(record)
        context.tick(record.epoch, epochs, f"validation {record.validation_score:.2%}, best {best:.2%}")

    return observe


def curve_csv(curve: Sequence[EpochRecord]) -> str:
    terms = list(curve[0].terms) if curve else []
    columns = ["epoch", "learning_rate", "loss", *terms, "validation_accuracy", "validation_cross_entropy", "seconds"]
    if curve and curve[0].validation_balanced_accuracy is not None:
        columns.append("validation_balanced_accuracy")
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for record in curve:
        writer.writerow(record.model_dump(exclude={"terms"}) | record.terms)
    return out.getvalue()


def with_classifier_of(context: StageContext, student: nn.Module, shipped: nn.Module) -> nn.Module:
    """The student's shipped form, with the weights of the classifier (or a method's head) taken from `shipped`."""
    made = make_recipe(context.config.distill.methods).deployable(student)
    classifier_of(made).load_state_dict(classifier_of(shipped).state_dict())
    return made


def classifier_of(network: nn.Module) -> nn.Module:
    assert isinstance(network, Classifier)
    return network.get_classifier()
