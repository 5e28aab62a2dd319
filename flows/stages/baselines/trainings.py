"""Trainings of the arms: the same first weights and the same order of examples by seed, the student's own epochs."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.drivers import Lesson
from edgestill.distill.elsewhere.stretch import Stretch
from edgestill.distill.elsewhere.training import Done, TeachAtOnce, Training, fitted_to_labels
from edgestill.distill.result import TuneResult
from edgestill.distill.study_server import study_place
from edgestill.distill.train import distill
from edgestill.distill.tune import tune
from edgestill.flows.stages.baselines.arms import Arm
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.elsewhere.trials import trials_at_once
from edgestill.flows.stages.elsewhere.workers import by_workers, in_turn
from edgestill.flows.stages.results import BaselineTraining
from edgestill.flows.supervise import attempting
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.runs.checkpoint import state_bytes, weights_bytes
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.fit import FitResult
from edgestill.pipeline.training.state import EpochRecord

Observe = Callable[[EpochRecord], None]
_STAGE = "baselines"


class Trainings:
    """Trainings of a run's arms; after a kill each goes on from its last epoch."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._teach: TeachAtOnce | None = None
        self._coming: Iterator[tuple[Arm, int, Callable[[], Done]]] = iter(())

    @contextlib.contextmanager
    def by_workers(self) -> Iterator[None]:
        """Have the trainings done by the workers of the configured engine within."""
        with by_workers(self._context, lambda: (self._teacher, self.splits)) as self._teach:
            try:
                yield
            finally:
                self._teach, self._coming = None, iter(())

    def begin(self, arms: Sequence[Arm], seed: int) -> None:
        """Begin trainings by a seed, where workers do them; they are then asked for in this order."""
        if self._teach is not None:
            found = [self._training(arm, arm.config, seed, _order(self._context, seed)) for arm in arms]
            trainings = [
                training._replace(state=self._state(_file(arm, seed)), with_weights=True)
                for arm, training in zip(arms, found, strict=True)
            ]
            self._coming = zip(arms, [seed] * len(arms), self._teach(trainings), strict=True)

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
        if self._teach is not None:
            return self._by_worker(arm, seed, observe)
        start, context, file = time.perf_counter(), self._context, _file(arm, seed)
        before = _seconds_in(context.saved(_STAGE, file))
        with attempting(_named(arm, seed)):
            student, fitted = self._trained(arm, arm.config, seed, _order(context, seed), file, observe)
        return self._kept(arm, seed, weights_bytes(student), fitted, before + time.perf_counter() - start)

    def _by_worker(self, arm: Arm, seed: int, observe: Observe) -> BaselineTraining:
        before = _seconds_in(self._context.saved(_STAGE, _file(arm, seed)))
        while True:
            for begun, by, done in self._coming:
                if (begun.name, by) == (arm.name, seed):
                    found = done()
                    assert found.fitted is not None
                    assert found.weights is not None
                    observe(found.curve[-1])
                    return self._kept(arm, seed, found.weights, found.fitted, before + found.seconds)
            self.begin([arm], seed)  # there was no time for it when the others were begun

    def _kept(self, arm: Arm, seed: int, weights: bytes, fitted: FitResult, seconds: float) -> BaselineTraining:
        run = self._context.run
        return BaselineTraining(
            arm=arm.name,
            seed=seed,
            weights=str(run.write(_STAGE, f"{arm.name}_{seed}.safetensors", weights).relative_to(run.root)),
            validation=fitted.best,
            best_epoch=fitted.best_epoch,
            epochs=len(fitted.curve),
            seconds=seconds,
        )

    def tuned(self, arm: Arm) -> TuneResult:
        """Tune an arm as the recipe was tuned, with the same first weights and as many trials.

        Raises:
            FailedError: no trial completed.
        """
        context, name = self._context, f"{arm.name}.db"

        def train(config: DistillConfig, trial: int, observe: Observe) -> float:
            with attempting(f"trial {trial} of {arm.name}"):
                _, fitted = self._trained(arm, config, 0, context.seed("tune"), file(trial), observe)
            return fitted.best.score

        def file(trial: int) -> str:
            return f".{arm.name}_trial_{trial}.pt"

        def training(stretch: Stretch) -> Training:
            found = self._training(arm, stretch.config, 0, context.seed("tune"))
            return found._replace(name=f"trial {stretch.trial} of {arm.name}")

        teach = self._teach
        if teach is None and context.config.tune.at_once > 1:
            teach = in_turn(context, self._teacher, self.splits, attempting)

        return tune(
            context.config.tune,
            arm.config,
            train,
            study_place(context.config.device.studies, context.run.path(_STAGE, name)),
            seed=context.seed("tune"),
            owner=context.run.owner(_STAGE, name, context.inputs),
            tick=context.tick,
            say=context.say,
            at_once=None if teach is None else trials_at_once(context, _STAGE, teach, training, file),
        )

    def _training(self, arm: Arm, config: DistillConfig, seed: int, order: int) -> Training:
        return Training(
            name=_named(arm, seed),
            student=self._student(arm, seed),
            config=config,
            seed=order,
            views_seed=self._context.seed("distill"),
            by_labels=not arm.has_teacher,
        )

    def _student(self, arm: Arm, seed: int) -> nn.Module:
        context = self._context
        first = context.structure if arm.begins_at_random else context.fresh_student
        return first(context.architecture_of(arm.candidate), self.splits.task, seed)

    def _state(self, file: str) -> bytes | None:
        state = self._context.saved(_STAGE, file)
        return None if state is None else state_bytes(state)

    def _trained(
        self, arm: Arm, config: DistillConfig, seed: int, order: int, file: str, observe: Observe
    ) -> tuple[nn.Module, FitResult]:
        context, student = self._context, self._student(arm, seed)
        everything: Mapping[str, Any] = {
            "seed": order,
            "device": context.device,
            "observe": observe,
            "save": context.saver(_STAGE, file),
            "resume": context.saved(_STAGE, file),
            "compute": context.compute,
        }
        if not arm.has_teacher:
            return student, fitted_to_labels(student, self.splits, config.training, context.seed("distill"), everything)
        done = distill(student, self._teacher, self.splits, config, views_seed=context.seed("distill"), **everything)
        return done.student, done.fitted


def _order(context: StageContext, seed: int) -> int:
    return context.seed("distill", *([seed] if seed else []))


def _named(arm: Arm, seed: int) -> str:
    return f"{arm.name} by seed {seed}"


def _file(arm: Arm, seed: int) -> str:
    return f".{arm.name}_{seed}.pt"


def _seconds_in(state: Mapping[str, Any] | None) -> float:
    return sum(record["seconds"] for record in state["curve"]) if state else 0.0
