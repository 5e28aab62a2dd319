"""Short distillations of many students under equal conditions: the tournament's and the rank check's."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.elsewhere.training import Done, TeachAtOnce, Training
from edgestill.distill.train import distill
from edgestill.flows.stages.context import StageContext
from edgestill.flows.supervise import attempting
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.runs.checkpoint import read_state, state_bytes
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.metrics import packed, right_answers
from edgestill.pipeline.training.state import restarted
from edgestill.search.space import Architecture
from edgestill.search.tournament import Trained


class ShortTrainings:
    """Short distillations, as configured but for a few epochs; after a kill each goes on from its last epoch.

    All students see the same examples in the same order under the same augmentation, draw their first weights from the
    same seed, and follow the configured learning rate through a schedule as long as the training.

    Args:
        name: of the stage, for its files and seeds.
        train_images: number of training images, drawn by seed; None is all.
    """

    def __init__(self, context: StageContext, name: str, train_images: int | None) -> None:
        self._context, self._name = context, name
        splits = context.splits()
        self.whole = splits
        self.splits = _with_part_of_train(splits, train_images, context.seed(name, "part"))
        self.teacher = frozen(context.teacher(splits.task))

    def __call__(self, architecture: Architecture, rung: int, epochs: int, method: str | None = None) -> Trained:
        """Train a student for one rung: rung 0 starts afresh, another from the best weights of the rung before.

        Args:
            method: name of a method in the place of the configured ones.
        """
        start, context = time.perf_counter(), self._context
        config = context.config.distill if method is None else context.config.distill.with_method(method)
        text = method or context.space.format(architecture)
        file = self._file(text, rung)
        state, before = self._state(text, rung)
        with attempting(f"{text} in rung {rung + 1}"):
            done = distill(
                context.fresh_student(architecture, self.splits.task),
                self.teacher,
                self.splits,
                _short(config, epochs),
                seed=context.seed(self._name, rung),
                device=context.device,
                save=context.saver(self._name, file),
                resume=state,
                compute=context.compute,
            )
            right = right_answers(done.student, self.splits.validation, context.device)
        seconds = before + time.perf_counter() - start
        return Trained(done.fitted.best.score, seconds, packed(right))

    def at_once(
        self,
        teach: TeachAtOnce,
        architectures: Sequence[Architecture],
        rung: int,
        epochs: int,
    ) -> Iterator[Callable[[], Trained]]:
        """Yield a function for each student, in order, that returns its training for the rung or raises its failure.

        Args:
            teach: does trainings at once; each gives its state back at its end.
        """
        context, texts = self._context, [self._context.space.format(architecture) for architecture in architectures]
        begun = [self._state(text, rung) for text in texts]
        trainings = [
            Training(
                name=f"{text} in rung {rung + 1}",
                student=context.fresh_student(architecture, self.splits.task),
                config=_short(context.config.distill, epochs),
                seed=context.seed(self._name, rung),
                state=None if state is None else state_bytes(state),
                until=epochs,
                with_answers=True,
            )
            for architecture, text, (state, _) in zip(architectures, texts, begun, strict=True)
        ]
        for text, (_, before), done in zip(texts, begun, teach(trainings), strict=True):
            yield partial(self._kept, self._file(text, rung), before, done)

    def _kept(self, file: str, before_s: float, done: Callable[[], Done]) -> Trained:
        """Save the state of a training that was done elsewhere, from which the next rung begins."""
        found = done()
        assert found.fitted is not None
        assert found.right is not None
        if found.state is not None:
            self._context.saver(self._name, file)(read_state(found.state))
        return Trained(found.fitted.best.score, before_s + found.seconds, packed(found.right))

    def _state(self, text: str, rung: int) -> tuple[dict[str, Any] | None, float]:
        """Return the state to begin the rung from, and the seconds that were spent on the rung before a kill."""
        state = self._context.saved(self._name, self._file(text, rung))
        if state is not None or not rung:
            return state, sum(record["seconds"] for record in state["curve"]) if state else 0.0
        last = self._context.saved(self._name, self._file(text, rung - 1))
        assert last is not None, "a rung follows the one before"
        return restarted(last), 0.0

    @staticmethod
    def _file(text: str, rung: int) -> str:
        return f".{digest(text)[:16]}_{rung}.pt"


def _short(config: DistillConfig, epochs: int) -> DistillConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs, "patience": 0})})


def _with_part_of_train(splits: Splits, count: int | None, seed: int) -> Splits:
    if count is None or count >= len(splits.train):
        return splits
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))
    index = order[:count].sort().values
    return dataclasses.replace(splits, train=splits.train.select(index))
