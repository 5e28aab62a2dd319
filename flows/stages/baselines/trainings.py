"""Trainings of the arms: the same first weights and the same order of examples by seed, the student's own epochs."""

import math
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from torch import nn

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.drivers import Lesson
from edgestill.distill.result import TuneResult
from edgestill.distill.study_server import study_place
from edgestill.distill.train import distill
from edgestill.distill.tune import tune
from edgestill.flows.stages.baselines.arms import Arm
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import BaselineTraining
from edgestill.flows.supervise import attempting
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.fit import FitResult, fit
from edgestill.pipeline.training.objective import Supervised
from edgestill.pipeline.training.state import EpochRecord

Observe = Callable[[EpochRecord], None]
_STAGE = "baselines"


class Trainings:
    """Trainings of a run's arms; after a kill each goes on from its last epoch."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    @cached_property
    def _lesson(self) -> Lesson:
        return self._context.driver().afterwards(self._context.whole_splits())

    @cached_property
    def splits(self) -> Splits:
        return self._lesson.splits or self._context.splits()

    @cached_property
    def _teacher(self) -> nn.Module:
        return frozen(self._lesson.teacher or self._context.teacher(self.splits.task))

    def __call__(self, arm: Arm, seed: int, observe: Observe) -> BaselineTraining:
        """Train an arm by a seed and keep its weights; seed 0 has the distillation's first weights and order."""
        start, context, file = time.perf_counter(), self._context, f".{arm.name}_{seed}.pt"
        before = _seconds_in(context.saved(_STAGE, file))
        order = context.seed("distill", *([seed] if seed else []))
        with attempting(f"{arm.name} by seed {seed}"):
            student, fitted = self._trained(arm, arm.config, seed, order, file, observe)
        weights = context.run.write(_STAGE, f"{arm.name}_{seed}.safetensors", weights_bytes(student))
        return BaselineTraining(
            arm=arm.name,
            seed=seed,
            weights=str(weights.relative_to(context.run.root)),
            validation=fitted.best,
            best_epoch=fitted.best_epoch,
            epochs=len(fitted.curve),
            seconds=before + time.perf_counter() - start,
        )

    def tuned(self, arm: Arm) -> TuneResult:
        """Tune an arm as the recipe was tuned, with the same first weights and as many trials.

        Raises:
            FailedError: no trial completed.
        """
        context, name = self._context, f"{arm.name}.db"

        def train(config: DistillConfig, trial: int, observe: Observe) -> float:
            with attempting(f"trial {trial} of {arm.name}"):
                file = f".{arm.name}_trial_{trial}.pt"
                _, fitted = self._trained(arm, config, 0, context.seed("tune"), file, observe)
            return fitted.best.score

        return tune(
            context.config.tune,
            arm.config,
            train,
            study_place(context.config.device.studies, context.run.path(_STAGE, name)),
            seed=context.seed("tune"),
            owner=context.run.owner(_STAGE, name, context.inputs),
            tick=context.tick,
            say=context.say,
        )

    def _trained(
        self, arm: Arm, config: DistillConfig, seed: int, order: int, file: str, observe: Observe
    ) -> tuple[nn.Module, FitResult]:
        context, task = self._context, self.splits.task
        architecture = context.architecture_of(arm.candidate)
        first = context.structure if arm.begins_at_random else context.fresh_student
        student, resume = first(architecture, task, seed), context.saved(_STAGE, file)
        everything: Mapping[str, Any] = {
            "seed": order,
            "device": context.device,
            "observe": observe,
            "save": context.saver(_STAGE, file),
            "resume": resume,
            "compute": context.compute,
        }
        if not arm.has_teacher:
            return student, _fitted_to_labels(
                student, self.splits, config.training, context.seed("distill"), everything
            )
        done = distill(student, self._teacher, self.splits, config, views_seed=context.seed("distill"), **everything)
        return done.student, done.fitted


def _fitted_to_labels(
    student: nn.Module, splits: Splits, training: StudentTrainingConfig, views_seed: int, everything: Mapping[str, Any]
) -> FitResult:
    """Train on the labelled examples alone, for as many steps as on all examples."""
    labelled = splits.train.labelled()
    longer = len(splits.train) / len(labelled)
    epochs, patience = (math.ceil(count * longer) for count in (training.epochs, training.patience))
    return fit(
        student,
        Supervised(),
        labelled,
        splits.validation,
        training.model_copy(update={"epochs": epochs, "patience": patience}),
        augmentation=Augmentation(splits.augment, views=training.views, images=len(labelled), seed=views_seed),
        **everything,
    )


def _seconds_in(state: Mapping[str, Any] | None) -> float:
    return sum(record["seconds"] for record in state["curve"]) if state else 0.0
