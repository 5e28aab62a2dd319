"""A training as a value that any process can do: it is given all that it needs, and gives back plain values.

The process of the run keeps the files. A worker reads no file of a run and writes none.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.train import distill
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.device import Compute, on_threads
from edgestill.pipeline.engines import Answer
from edgestill.pipeline.errors import CandidateError, UserError
from edgestill.pipeline.runs.checkpoint import read_state, state_bytes, weights_bytes
from edgestill.pipeline.training.fit import FitResult, fit
from edgestill.pipeline.training.metrics import right_answers
from edgestill.pipeline.training.objective import Supervised
from edgestill.pipeline.training.state import EpochRecord

_FAILURES = (RuntimeError, ArithmeticError, MemoryError)  # of one training alone


class Training(NamedTuple):
    """A training to be done, or a part of it.

    Args:
        student: with its first weights.
        state: of `pipeline.training.fit`, serialised, to go on from; None: from the start.
        until: number of epochs after which the state is given back; the training pauses there if it is not at its end.
        views_seed: as `distill` takes it.
        by_labels: True for a training without a teacher.
        with_answers: True if the validation examples that the student answers right are asked for.
        with_weights: True if the weights of its shipped form are.
    """

    name: str  # in sentences
    student: nn.Module
    config: DistillConfig
    seed: int
    state: bytes | None = None
    until: int | None = None
    views_seed: int | None = None
    by_labels: bool = False
    with_answers: bool = False
    with_weights: bool = False


class Done(NamedTuple):
    """A training that was done, or a part of it."""

    fitted: FitResult | None  # None: it paused
    curve: tuple[EpochRecord, ...]  # of all epochs so far
    seconds: float  # of this part
    state: bytes | None = None
    right: np.ndarray | None = None  # [N] bool
    weights: bytes | None = None  # safetensors
    cautions: tuple[str, ...] = ()


# Yields a function for each training, in order, that returns what was done or raises the training's failure.
TeachAtOnce = Callable[[Sequence[Training]], Iterator[Callable[[], Done]]]


class _Failed(NamedTuple):
    error: Exception


@dataclass(frozen=True)
class Teaching:
    """Trainings by one teacher on the same splits; a function of a `Training`.

    Args:
        threads: number of torch threads, which decide a training's last bits.
    """

    teacher: nn.Module | None  # None where all trainings are by labels
    splits: Splits
    device: torch.device
    compute: Compute
    threads: int

    def __call__(self, training: Training) -> "Done | _Failed":
        """Do a training, and return what `done` reads.

        Raises:
            UserError: a fault of every training.
        """
        try:
            with on_threads(self.threads):
                return self._done(training)
        except UserError:
            raise
        except _FAILURES as error:
            return _Failed(error)

    def _done(self, training: Training) -> Done:
        start, kept, cautions = time.perf_counter(), _Kept(training), list[str]()
        before = None if training.state is None else read_state(training.state)
        if before is not None and kept.is_over(before):
            return Done(None, _curve(before), 0.0, training.state)
        everything: dict[str, Any] = {
            "seed": training.seed,
            "device": self.device,
            "save": kept.save,
            "resume": before,
            "compute": replace(self.compute, tell=cautions.append),
        }
        try:
            student, fitted = self._fitted(training, everything)
        except _Paused as paused:
            return Done(None, paused.curve, time.perf_counter() - start, kept.state)
        right = right_answers(student, self.splits.validation, self.device) if training.with_answers else None
        return Done(
            fitted,
            fitted.curve,
            time.perf_counter() - start,
            kept.state or training.state,
            right,
            weights_bytes(student) if training.with_weights else None,
            tuple(cautions),
        )

    def _fitted(self, training: Training, everything: Mapping[str, Any]) -> tuple[nn.Module, FitResult]:
        student, config = training.student, training.config
        if training.by_labels:
            views_seed = training.seed if training.views_seed is None else training.views_seed
            return student, fitted_to_labels(student, self.splits, config.training, views_seed, everything)
        assert self.teacher is not None
        found = distill(student, self.teacher, self.splits, config, views_seed=training.views_seed, **everything)
        return found.student, found.fitted


class _Paused(Exception):
    """End of a part of a training."""

    def __init__(self, curve: tuple[EpochRecord, ...]) -> None:
        super().__init__()
        self.curve = curve


class _Kept:
    """State of a training from `until` on; a training that is not at its end pauses there."""

    def __init__(self, training: Training) -> None:
        self._until, self._epochs = training.until, training.config.training.epochs
        self.state: bytes | None = None

    def save(self, state: dict[str, Any]) -> None:
        if self._until is not None and len(state["curve"]) >= self._until:
            self.state = state_bytes(state)
            if self.is_over(state):
                raise _Paused(_curve(state))

    def is_over(self, state: Mapping[str, Any]) -> bool:
        """True if the part that was asked for is done, and more of the training is left."""
        return self._until is not None and self._until <= len(state["curve"]) < self._epochs


def _curve(state: Mapping[str, Any]) -> tuple[EpochRecord, ...]:
    return tuple(EpochRecord.model_validate(record) for record in state["curve"])


def done(answer: Answer) -> Done:
    """Return the training that a worker did.

    Raises:
        CandidateError: its worker was lost with it, more than once.
        RuntimeError, ArithmeticError, MemoryError: raised by the training.
    """
    if answer.lost:
        raise CandidateError(answer.lost, "process_died")
    if isinstance(answer.value, _Failed):
        raise answer.value.error
    found: Done = answer.value
    return found


def fitted_to_labels(
    student: nn.Module, splits: Splits, training: StudentTrainingConfig, views_seed: int, everything: Mapping[str, Any]
) -> FitResult:
    """Train on the labelled examples alone, for as many steps as on all examples.

    Args:
        everything: the other arguments of `fit`.
    """
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
