"""A classifier's answers by class: recall, precision, the majority class's share, classes that it hardly recognises."""

# N examples, K classes

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgestill.pipeline.frozen import Count, Frozen, without_none
from edgestill.pipeline.training.metrics import tells_apart, wilson

_MOST_NAMED = 5  # classes in a sentence
_MOST_CLASSES = 1_000_000


class Confusion(Frozen):
    """Number of examples of each class that were given each answer; pairs without examples are left out."""

    num_classes: int = Field(ge=1, le=_MOST_CLASSES)
    cells: tuple[tuple[Count, Count, Count], ...] = Field(min_length=1)  # class, answer, examples
    unit: Literal["class", "token"] = "class"  # what an answer is one of

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the unit of classes, so that digests of earlier versions' results stay the same."""
        return without_none(handler(self) | ({"unit": None} if self.unit == "class" else {}), "unit")

    @model_validator(mode="after")
    def _has_classes_below_their_number(self) -> "Confusion":
        if any(max(truth, answer) >= self.num_classes or not count for truth, answer, count in self.cells):
            raise ValueError(f"a cell is of no pair of {self.num_classes} classes, or is empty")
        return self

    @classmethod
    def of(cls, answers: np.ndarray, targets: np.ndarray, num_classes: int, unit: str = "class") -> "Confusion":
        """Count answers [N] and targets [N], both as numbers of classes."""
        pairs, counts = np.unique(targets.astype(np.int64) * num_classes + answers, return_counts=True)
        cells = zip((pairs // num_classes).tolist(), (pairs % num_classes).tolist(), counts.tolist(), strict=True)
        return cls(num_classes=num_classes, cells=tuple(cells), unit=unit)

    @property
    def most_frequent(self) -> str:
        """Name of what the baseline always answers."""
        return "majority class" if self.unit == "class" else f"most frequent {self.unit}"

    @cached_property
    def counts(self) -> np.ndarray:
        """Examples of each class, [K]."""
        return self._summed((truth, count) for truth, _, count in self.cells)

    @cached_property
    def answered(self) -> np.ndarray:
        """Answers of each class, [K]."""
        return self._summed((answer, count) for _, answer, count in self.cells)

    @cached_property
    def hits(self) -> np.ndarray:
        """Examples of each class that were answered right, [K]."""
        return self._summed((truth, count) for truth, answer, count in self.cells if truth == answer)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        return int(self.hits.sum()) / self.n

    @property
    def majority(self) -> float:
        """Accuracy of always answering the most frequent class."""
        return int(self.counts.max()) / self.n

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes with examples."""
        return mean_recall(self.hits, self.counts)

    def recall(self, number: int) -> float | None:
        """Share of a class's examples that were answered right; None without examples."""
        return _share(self.hits[number], self.counts[number])

    def precision(self, number: int) -> float | None:
        """Share of right ones among the answers of a class; None if it was never answered."""
        return _share(self.hits[number], self.answered[number])

    @property
    def beats_majority(self) -> bool:
        """True if the accuracy is above the majority class's by more than chance, on the same examples."""
        most = int(self.counts.argmax())
        lost, gained = int(self.counts[most] - self.hits[most]), int(self.hits.sum() - self.hits[most])
        return gained > lost and tells_apart(lost, gained)

    @property
    def beats_chance(self) -> bool:
        """True if the mean recall is surely above that of answers that know nothing of the input, 1 / K.

        Its 95 % interval has to lie above; a recall's variance is that of the share (hits + 1) / (n + 2), which is not
        0 at recall 0 and 1.
        """
        there = self.counts > 0
        hits, counts = self.hits[there], self.counts[there]
        shares = (hits + 1) / (counts + 2)
        deviation = float(np.sqrt((shares * (1 - shares) / (counts + 2)).sum())) / len(counts)
        return self.balanced_accuracy - 1.96 * deviation > 1 / len(counts)

    @property
    def is_useless(self) -> bool:
        """True if neither the accuracy surely beats the majority class, nor the mean recall chance."""
        return not self.beats_majority and not self.beats_chance

    @property
    def weak(self) -> tuple[int, ...]:
        """Classes with a recall of 0, or surely below half of the mean recall; the lowest recall first."""
        recalls = {k: int(self.hits[k]) / int(n) for k, n in enumerate(self.counts) if n}
        half = self.balanced_accuracy / 2
        found = [k for k, recall in recalls.items() if recall == 0 or wilson(recall, int(self.counts[k]))[1] < half]
        return tuple(sorted(found, key=lambda k: (recalls[k], -self.counts[k])))

    def _summed(self, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
        sums = np.zeros(self.num_classes, dtype=np.int64)
        for number, count in pairs:
            sums[number] += count
        return sums


def mean_recall(hits: np.ndarray, counts: np.ndarray) -> float:
    """Mean over classes of hits [K] / counts [K]; classes without examples are left out."""
    there = counts > 0
    return float((hits[there] / counts[there]).mean())


def useless(confusion: Confusion, who: str, where: str) -> str:
    """Say that a classifier is useless, in a sentence; empty if it is not.

    Args:
        who: the classifier, such as `the shipped file`.
        where: its examples, such as `test`.
    """
    if not confusion.is_useless:
        return ""
    return (
        f"{who} is right on {confusion.accuracy:.2%} of {confusion.n:,} {where} examples, not surely more than always "
        f"answering the most frequent {confusion.unit} ({confusion.majority:.2%})"
    )


def weak_classes(confusion: Confusion, labels: Sequence[str], who: str, where: str) -> str:
    """Name the classes that a classifier hardly recognises, in a sentence; empty if there are none.

    Args:
        who: the classifier, such as `the shipped file`.
        where: its examples, such as `test`.
    """
    weak = confusion.weak
    if not weak:
        return ""
    named = [f"{labels[k]!r} {confusion.recall(k) or 0:.1%} of {confusion.counts[k]:,}" for k in weak[:_MOST_NAMED]]
    more = f" and {len(weak) - _MOST_NAMED:,} more" if len(weak) > _MOST_NAMED else ""
    return (
        f"{who} hardly recognises {len(weak):,} of {confusion.num_classes:,} classes; recall on {where}: "
        f"{', '.join(named)}{more}; mean recall {confusion.balanced_accuracy:.1%}"
    )


def _share(part: int, whole: int) -> float | None:
    return int(part) / int(whole) if whole else None
