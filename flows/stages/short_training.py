"""Short distillations of many students under equal conditions: the tournament's and the rank check's."""

import dataclasses
import time

import torch

from edgestill.distill.train import distill
from edgestill.flows.stages.context import StageContext
from edgestill.flows.supervise import attempting
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.frozen import digest
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
        self._teacher = frozen(context.teacher(splits.task))

    def __call__(self, architecture: Architecture, rung: int, epochs: int, method: str | None = None) -> Trained:
        """Train a student for one rung: rung 0 starts afresh, another from the best weights of the rung before.

        Args:
            method: name of a method in the place of the configured ones.
        """
        start, context = time.perf_counter(), self._context
        config = context.config.distill if method is None else context.config.distill.with_method(method)
        text = method or context.space.format(architecture)
        file = self._file(text, rung)
        state = context.saved(self._name, file)
        before = sum(record["seconds"] for record in state["curve"]) if state else 0.0
        if state is None and rung:
            last = context.saved(self._name, self._file(text, rung - 1))
            assert last is not None, "a rung follows the one before"
            state = restarted(last)
        training = config.training.model_copy(update={"epochs": epochs, "patience": 0})
        with attempting(f"{text} in rung {rung + 1}"):
            done = distill(
                context.fresh_student(architecture, self.splits.task),
                self._teacher,
                self.splits,
                config.model_copy(update={"training": training}),
                seed=context.seed(self._name, rung),
                device=context.device,
                save=context.saver(self._name, file),
                resume=state,
                compute=context.compute,
            )
            right = right_answers(done.student, self.splits.validation, context.device)
        seconds = before + time.perf_counter() - start
        return Trained(done.fitted.best.score, seconds, packed(right))

    @staticmethod
    def _file(text: str, rung: int) -> str:
        return f".{digest(text)[:16]}_{rung}.pt"


def _with_part_of_train(splits: Splits, count: int | None, seed: int) -> Splits:
    if count is None or count >= len(splits.train):
        return splits
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))
    index = order[:count].sort().values
    return dataclasses.replace(splits, train=splits.train.select(index))
