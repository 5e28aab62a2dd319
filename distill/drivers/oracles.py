"""Oracles of active distillation: whom it asks about an example, and what a lesson learns from the answers.

- dataset: labels that the data have and that were hidden; for benchmarks.
- people: labels that `edgestill label` reads from a table.
- teacher: the teacher's logits. It is asked about nothing else than the labelled and the chosen examples, and about
  none of them twice.

Answers of people and of the teacher are kept in the run as they come, by the example's name.
"""

# N examples, K classes

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from edgestill.distill.drivers.base import Log, Logs
from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit, Splits, with_few_labels
from edgestill.pipeline.errors import ConfigError, WaitingError
from edgestill.pipeline.networks.network import evaluating
from edgestill.pipeline.teachers.outputs import OutputsNetwork

_AT_ONCE = 16  # examples that the teacher is asked about before its answers are kept
_AUGMENTED = (
    "oracle 'teacher' is asked about the data's own examples alone, and data.augment makes others; leave data.augment "
    "out"
)


class Oracle(ABC):
    """Base of the oracles.

    Args:
        whole: the run's splits, with labels that others do not see.
        begun: the same with the labels of the start; all its examples have names.
        most: number of questions; None: no end.
    """

    name: ClassVar[str]

    def __init__(self, whole: Splits, begun: Splits, logs: Logs, most: int | None = None) -> None:
        self.begun, self._whole, self._most = begun, whole, most
        self._log = self._open(logs)
        assert begun.train.ids is not None
        self.names = [str(name) for name in begun.train.ids]
        self.place = {name: at for at, name in enumerate(self.names)}
        self.pool = self.askable(whole, begun)

    @classmethod
    def at_start(cls, begun: Splits, most: int | None) -> Splits:
        """Return the splits for the other stages; by default all examples, with the labels known at the start.

        Raises:
            ConfigError: they do not fit the oracle.
        """
        return begun

    @classmethod
    def askable(cls, whole: Splits, begun: Splits) -> Tensor:
        """Mark the examples that may be asked about, [N] bool; default: those without a label at the start."""
        return begun.train.targets.cpu() == UNLABELLED

    def _open(self, logs: Logs) -> Log:
        return logs(self.name, lasting=True)

    def left(self) -> int | None:
        """Number of questions left; None: no end."""
        return None

    def ask(self, chosen: Sequence[int], number: int, teacher: nn.Module) -> None:
        """Have an answer to each of the chosen examples of all rounds; `number` is the last one's.

        Raises:
            WaitingError: people have not answered yet.
        """

    @abstractmethod
    def taught(self, chosen: Sequence[int]) -> tuple[Splits, nn.Module | None]:
        """Splits and teacher (None: the run's) of a lesson, with the answers to the chosen examples."""

    def error_rate(self, teacher: nn.Module) -> float:
        """Share of the labels of the start that the teacher gets wrong."""
        split = self.begun.train.labelled()
        right = [_logits(teacher, split, index).argmax(1) == split.targets[index].cpu() for index in _parts(len(split))]
        return 1 - float(torch.cat(right).double().mean())

    def _with(self, labels: Mapping[int, int]) -> Splits:
        """The splits of the start with further labels, by position."""
        targets = self.begun.train.targets.clone()
        for at, label in labels.items():
            targets[at] = label
        return dataclasses.replace(self.begun, train=dataclasses.replace(self.begun.train, targets=targets))


class DatasetOracle(Oracle):
    """Labels of the data themselves."""

    name: ClassVar[str] = "dataset"

    def _open(self, logs: Logs) -> Log:
        return logs(self.name)  # stays empty: the data answer again

    @classmethod
    def askable(cls, whole: Splits, begun: Splits) -> Tensor:
        return super().askable(whole, begun) & (whole.train.targets.cpu() != UNLABELLED)

    def taught(self, chosen: Sequence[int]) -> tuple[Splits, nn.Module | None]:
        return self._with({at: int(self._whole.train.targets[at]) for at in chosen}), None


class PeopleOracle(Oracle):
    """Labels by people; of an example that fits no class, they say so, and it stays without a label."""

    name: ClassVar[str] = "people"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.answers: dict[str, int | None] = {}
        for entry in self._log.entries:
            self.answers |= entry["labels"]

    def keep(self, labels: Mapping[str, int | None]) -> None:
        """Keep labels by the examples' names, all of them or none; the last label of an example counts."""
        self._log.append({"labels": dict(labels)}, durable=True)
        self.answers |= labels

    def ask(self, chosen: Sequence[int], number: int, teacher: nn.Module) -> None:
        open_ = sum(self.names[at] not in self.answers for at in chosen)
        if open_:
            raise WaitingError(f"round {number} waits for the labels of {open_:,} example{'s' * (open_ != 1)}")

    def taught(self, chosen: Sequence[int]) -> tuple[Splits, nn.Module | None]:
        found = {at: self.answers[self.names[at]] for at in chosen}
        return self._with({at: label for at, label in found.items() if label is not None}), None


class TeacherOracle(Oracle):
    """Logits of the teacher, which a student learns beside the labels of the start; nothing else is learnt from."""

    name: ClassVar[str] = "teacher"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._answers: dict[str, list[float]] = {}
        for entry in self._log.entries:
            self._answers |= entry["logits"]
        self._first = (self.begun.train.targets.cpu() != UNLABELLED).nonzero()[:, 0].tolist()

    @classmethod
    def at_start(cls, begun: Splits, most: int | None) -> Splits:
        train = begun.train.labelled()
        if begun.augment.is_random:
            raise ConfigError([_AUGMENTED])
        if most is not None and len(train) > most:
            raise ConfigError(
                [
                    f"distill.driver.max_queries {most:,} is fewer than the {len(train):,} labelled examples that the "
                    "teacher is asked about first; raise it, or keep fewer labels by distill.driver.start"
                ]
            )
        return dataclasses.replace(begun, train=train)

    def left(self) -> int | None:
        return None if self._most is None else self._most - len(self._answers)

    @property
    def queries(self) -> int:
        """Number of examples that the teacher was asked about."""
        return len(self._answers)

    def ask(self, chosen: Sequence[int], number: int, teacher: nn.Module) -> None:
        train = self.begun.train
        unasked = [at for at in (*self._first, *chosen) if self.names[at] not in self._answers]
        for index in torch.tensor(unasked, dtype=torch.int64).split(_AT_ONCE) if unasked else ():  # type: ignore[no-untyped-call]
            rows = _logits(teacher, train, index).tolist()
            found = {self.names[at]: row for at, row in zip(index.tolist(), rows, strict=True)}
            self._log.append({"logits": found}, durable=True)
            self._answers |= found

    def taught(self, chosen: Sequence[int]) -> tuple[Splits, nn.Module | None]:
        asked = sorted((*self._first, *chosen))
        train = self.begun.train.select(torch.tensor(asked))
        network = OutputsNetwork.of([self.names[at] for at in asked], self._kept(asked))
        network.meet(train, "the teacher as it was asked")
        return dataclasses.replace(self.begun, train=train), network

    def error_rate(self, teacher: nn.Module) -> float:
        right = self._kept(self._first).argmax(1) == self.begun.train.targets.cpu()[self._first]
        return 1 - float(right.double().mean())

    def _kept(self, places: Sequence[int]) -> Tensor:
        return torch.tensor([self._answers[self.names[at]] for at in places])


ORACLES: dict[str, type[Oracle]] = {"people": PeopleOracle, "dataset": DatasetOracle, "teacher": TeacherOracle}


def with_labels_of_start(splits: Splits, per_class: int | None, seed: int) -> Splits:
    """Hide all labels but those of `per_class` examples a class, drawn by seed (None: none is hidden); name all."""
    train = splits.train if per_class is None else with_few_labels(splits.train, per_class, seed)
    if train.ids is None:
        train = dataclasses.replace(train, ids=np.array([str(at) for at in range(len(train))]))
    labelled = int((train.targets != UNLABELLED).sum())
    sizes = splits.sizes | {"train": labelled, "unlabelled": len(train) - labelled}
    return dataclasses.replace(splits, train=train, sizes=sizes if splits.sizes else {})


def _parts(count: int) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = torch.arange(count).split(512)  # type: ignore[no-untyped-call]
    return found


def _logits(network: nn.Module, split: ImageSplit, index: Tensor) -> Tensor:
    """Logits [B, K] of chosen examples, as float32 on the CPU."""
    device = next((one.device for one in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    with evaluating(network), torch.no_grad():
        found: Tensor = network(split.batch(index, device).inputs)
    return found.float().cpu()
