"""Short distillations of many students under equal conditions: the tournament's and the rank check's."""

import dataclasses
import time

import torch

from edgestill.distill.train import distill
from edgestill.flows.stages.context import Stage, fresh_student, saved, saver, trained_teacher
from edgestill.flows.supervise import attempting
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.metrics import packed, right_answers
from edgestill.pipeline.training.state import restarted
from edgestill.search.tournament import Trained


class ShortTrainings:
    """Short distillations, as configured but for a few epochs; after a kill each goes on from its last epoch.

    All students see the same examples in the same order under the same augmentation, draw their first weights from the
    same seed, and follow the configured learning rate through a schedule as long as the training.

    Args:
        name: of the stage, for its files and seeds.
        train_images: number of training images, drawn by seed; None is all.
    """

    def __init__(self, stage: Stage, name: str, train_images: int | None) -> None:
        self._stage, self._name = stage, name
        splits = stage.splits()
        self.whole = splits
        self.splits = _with_part_of_train(splits, train_images, stage.seed(name, "part"))
        self._teacher = frozen(trained_teacher(stage, splits.task))

    def __call__(self, architecture: str, rung: int, epochs: int) -> Trained:
        """Train a student for one rung: rung 0 starts afresh, another from the best weights of the rung before."""
        start, stage = time.perf_counter(), self._stage
        file = self._file(architecture, rung)
        state = saved(stage, self._name, file)
        before = sum(record["seconds"] for record in state["curve"]) if state else 0.0
        if state is None and rung:
            last = saved(stage, self._name, self._file(architecture, rung - 1))
            assert last is not None, "a rung follows the one before"
            state = restarted(last)
        training = stage.config.distill.training.model_copy(update={"epochs": epochs, "patience": 0})
        with attempting(f"{architecture} in rung {rung + 1}"):
            done = distill(
                fresh_student(stage, architecture, self.splits.task),
                self._teacher,
                self.splits,
                stage.config.distill.model_copy(update={"training": training}),
                seed=stage.seed(self._name, rung),
                device=stage.device,
                save=saver(stage, self._name, file),
                resume=state,
                compute=stage.compute,
            )
            right = right_answers(done.student, self.splits.validation, stage.device)
        seconds = before + time.perf_counter() - start
        return Trained(done.fitted.best.accuracy, seconds, packed(right))

    @staticmethod
    def _file(architecture: str, rung: int) -> str:
        return f".{digest(architecture)[:16]}_{rung}.pt"


def _with_part_of_train(splits: Splits, count: int | None, seed: int) -> Splits:
    if count is None or count >= len(splits.train):
        return splits
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))
    index = order[:count].sort().values
    part = ImageSplit(splits.train.images[index], splits.train.targets[index])
    return dataclasses.replace(splits, train=part)
