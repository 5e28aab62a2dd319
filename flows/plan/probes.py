"""Short measurements on this machine, from which stages estimate their time; each is made once, when it is asked for.

The networks are fresh: their speed is that of trained ones. The student is one of the larger quarter of those within
budget, as the winners of a search mostly are.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.train import caches_teacher, distill
from edgestill.export.result import ConvertResult
from edgestill.flows.config.model import RunConfig
from edgestill.flows.stages.heads import what_ships
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.device import Compute
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import build_teacher, make_teacher
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.objective import Supervised
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.space import Architecture

_SECONDS = 1.0  # of an epoch to be timed, about
_FIRST_BATCHES = 4  # of the epoch that tells how many batches take so long
_EPOCHS = 4  # the first is slower and does not count; of the others the median does
_EVALUATED = 256  # examples
_MOST = 4096  # training examples that are taken for it

Train = Callable[[Splits, int, Callable[[EpochRecord], None]], None]  # splits, epochs, observe


class Surroundings(Protocol):
    """Part of a stage's context that measurements need; `StageContext` is one."""

    @property
    def config(self) -> RunConfig: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def compute(self) -> Compute: ...
    def splits(self) -> Splits: ...
    def structure(self, architecture: Architecture, task: Task, /) -> nn.Module: ...
    def saver(self, stage: str, /) -> Callable[[dict[str, Any]], None]: ...


class Speed(NamedTuple):
    """Speed of a training."""

    start_s: float  # before the first epoch, for each training example
    example_s: float  # for each training example of an epoch
    evaluated_s: float  # for each validation example of an epoch

    def seconds(self, epochs: float, examples: int, validation: int, trainings: float = 1.0) -> float:
        """Seconds of so many trainings of so many epochs in all."""
        epoch = self.example_s * examples + self.evaluated_s * validation
        return epochs * epoch + trainings * self.start_s * examples


class Probes:
    """Measurements for one configuration."""

    def __init__(self, context: Surroundings, architectures: list[Architecture]) -> None:
        """Take a run made for this, and students within budget, by their number of parameters."""
        self.context, self._architectures = context, architectures
        self.files: ConvertResult | None = None  # of the typical student, once the export is estimated

    @property
    def splits(self) -> Splits:
        return self.context.splits()

    @property
    def test_size(self) -> int:
        return self.splits.sizes["test"]

    @property
    def typical(self) -> Architecture:
        """Architecture at the upper quartile of parameters."""
        return self._architectures[(3 * (len(self._architectures) - 1)) // 4]

    @cached_property
    def teacher(self) -> nn.Module:
        with drawn_from(0):
            network = build_teacher(self.context.config.teacher, self.splits.task)
        make_teacher(self.context.config.teacher).meet(network, self.splits.parts)
        return network

    def student(self) -> nn.Module:
        """Build the typical student in its shipped form."""
        student = self.context.structure(self.typical, self.splits.task)
        ships = what_ships(self.context.config.distill)
        return student if ships is None else ships(student)

    @cached_property
    def teacher_evaluated_s(self) -> float:
        return self._evaluated_s(self.teacher)

    @cached_property
    def student_evaluated_s(self) -> float:
        return self._evaluated_s(self.student())

    @cached_property
    def teacher_training(self) -> Speed:
        """Speed of the teacher's own training."""
        config, context = self.context.config.teacher.training, self.context

        def train(splits: Splits, epochs: int, observe: Callable[[EpochRecord], None]) -> None:
            with drawn_from(0):
                network = build_teacher(context.config.teacher, splits.task)
            fit(
                network, Supervised(), splits.train.labelled(), splits.validation,
                config.model_copy(update={"epochs": epochs, "patience": 0}), seed=0, device=context.device,
                augmentation=Augmentation(splits.augment), observe=observe, save=context.saver("teacher"),
                compute=context.compute,
            )  # fmt: skip

        return self._speed(train, config.batch_size, self.teacher_evaluated_s, has_start=False)

    @cached_property
    def student_training(self) -> Speed:
        """Speed of the typical student's distillation, as configured."""
        config, context = self.context.config.distill, self.context

        def train(splits: Splits, epochs: int, observe: Callable[[EpochRecord], None]) -> None:
            student = context.structure(self.typical, splits.task)
            short = _of_epochs(config, epochs)
            distill(
                student, self.teacher, splits, short, seed=0, device=context.device, observe=observe,
                save=context.saver("distill"), compute=context.compute,
            )  # fmt: skip

        cached = caches_teacher(config.recipe(), self.splits, config.training.views)
        return self._speed(train, config.training.batch_size, self.student_evaluated_s, has_start=cached)

    def taught_s(self, epochs: float, examples: int | None = None, trainings: float = 1.0) -> float:
        """Seconds of so many trainings of the typical student, of so many epochs in all."""
        part = len(self.splits.train) if examples is None else min(examples, len(self.splits.train))
        return self.student_training.seconds(epochs, part, len(self.splits.validation), trainings)

    def _evaluated_s(self, network: nn.Module) -> float:
        some = part_of(self.splits.validation, _EVALUATED)
        network.to(self.context.device)
        evaluate(network, some, self.context.device)
        return min(_timed(lambda: evaluate(network, some, self.context.device)) for _ in range(2)) / len(some)

    def _speed(self, train: Train, batch_size: int, evaluated_s: float, has_start: bool) -> Speed:
        count = min(_FIRST_BATCHES * batch_size, _MOST, len(self.splits.train))
        first = self._epoch_s(train, count)[0]
        count = max(count, min(int(count * _SECONDS / first), _MOST, len(self.splits.train)))
        epoch, start = self._epoch_s(train, count)
        validation = evaluated_s * min(_EVALUATED, len(self.splits.validation))
        return Speed(start / count if has_start else 0.0, max(epoch - validation, 0.1 * epoch) / count, evaluated_s)

    def _epoch_s(self, train: Train, count: int) -> tuple[float, float]:
        """Time epochs on so many examples; return the median's seconds, and those before the first."""
        splits = dataclasses.replace(
            self.splits, train=part_of(self.splits.train, count), validation=part_of(self.splits.validation, _EVALUATED)
        )
        ends, lengths = [time.perf_counter()], list[float]()

        def observe(record: EpochRecord) -> None:
            ends.append(time.perf_counter())
            lengths.append(record.seconds)

        train(splits, _EPOCHS, observe)
        between = [after - before for before, after in pairwise(ends[1:])]
        return statistics.median(between), max(0.0, ends[1] - ends[0] - lengths[0])


def part_of(split: ImageSplit, count: int) -> ImageSplit:
    """Return some examples, spread over the split; a smaller split is returned whole."""
    if count >= len(split):
        return split
    index = torch.linspace(0, len(split) - 1, count).long()
    return dataclasses.replace(split.select(index), images=split.images[index], ids=None)


def _of_epochs(config: DistillConfig, epochs: int) -> DistillConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs, "patience": 0})})


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
