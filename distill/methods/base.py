"""The contract of a method: it fills one slot of the equation, or a few, and leaves the rest alone.

    L = mean_n [ a_n CE(head(x_n), y_n) + b_n D(target_n, s_n) ] + sum_j lambda_j R_j(features)

A method overrides what the slots that it declares in `fills` stand for, and nothing else. The equation itself is
assembled in `distill/recipe.py`, never in a method.
"""

# N examples, K classes, D embedding width

from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pipeline.data import Batch, ImageSplit
from pipeline.frozen import Frozen
from pipeline.network import View, evaluating, look
from pipeline.task import PADDING, Task

Slot = Literal["data", "teacher", "target", "divergence", "weight", "feature", "head"]
SLOTS: tuple[Slot, ...] = ("data", "teacher", "target", "divergence", "weight", "feature", "head")


class MethodConfig(Frozen):
    """A method's hyperparameters, each declared with `tunable` or a plain Field."""

    name: str

    def unread(self) -> frozenset[str]:
        """The hyperparameters that nothing reads as the others are set: there is nothing in them to tune."""
        return frozenset()


@dataclass(frozen=True)
class Context:
    """What a method may look at before the first epoch, and keep. There is no test split in it."""

    task: Task
    teacher: nn.Module  # frozen
    student: nn.Module  # the one that the loop trains
    train: ImageSplit
    reference: ImageSplit
    device: torch.device
    seed: int
    deployable: Callable[[], nn.Module]  # the student as it would ship now: inputs to logits [N, K], whatever the head
    teacher_view: Callable[[Batch], View]  # a batch to what the recipe knows of the teacher, cached or not
    decode: Callable[[Sequence[int]], str] | None = None  # of text: token ids back to words
    is_taught: bool = False  # the student comes from another training by this recipe, whose state methods go on from

    def show(self, example: Tensor, caption: str) -> "ExhibitItem":
        """One input [C, H, W] or [T] as it can be shown in the report: pixels, or words as far as ids tell."""
        if not example.is_floating_point():
            ids = [int(number) for number in example if number != PADDING]
            text = " ".join(map(str, ids)) if self.decode is None else self.decode(ids)
            return ExhibitItem(caption=caption, text=text)
        pixels = example.detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
        return ExhibitItem(caption=caption, pixels=tuple(pixels.flatten().tolist()), shape=tuple(pixels.shape))


class Exhibit(Frozen):
    """Examples that a method wants to show in the report."""

    title: str
    note: str  # what there is to see, in a sentence or two
    items: tuple["ExhibitItem", ...]


class ExhibitItem(Frozen):
    caption: str
    text: str = ""  # of a text task
    pixels: tuple[int, ...] = ()  # uint8, of shape `shape` flattened
    shape: tuple[int, ...] = ()  # C, H, W


class Method(ABC):
    """Override the hooks of the slots in `fills`; each docstring says what the slot's default is."""

    name: ClassVar[str]
    paper: ClassVar[str]  # authors, year, arXiv id
    fills: ClassVar[frozenset[Slot]]
    min_classes: ClassVar[int] = 2
    reads_features: ClassVar[bool] = False  # with slot `feature`: of the teacher, beyond embedding and logits
    studies_teacher: ClassVar[bool] = False  # looks at the context's teacher by itself, beside what `teacher` answers
    Config: ClassVar[type[MethodConfig]]

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def replaces_teacher(self) -> bool:
        """Whether its teacher is another than the context's, which a method with `studies_teacher` looks at."""
        return "teacher" in self.fills

    @property
    def varies_teacher(self) -> bool:
        """With slot `teacher`: whether its answer to an input changes after `prepare`, so that none may be kept."""
        return True

    def check(self, task: Task, train: ImageSplit) -> None:
        """Before anything is trained, and again before `prepare`: refuse what cannot be.

        Raises:
            ConfigError: the task or the training split does not fit the configuration.
            MissingDependencyError: an optional library is not installed.
        """

    def prepare(self, context: Context) -> None:
        """Before the first epoch of any training: modules of the method's own, into which a state can be loaded."""

    def study(self, context: Context) -> None:
        """Behind `prepare`: what is learnt of teacher and data, once for a student.

        Left out where `load_state_dict` gives it: it belongs to the student, whose weights were trained with it.
        """

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Slot `data`; default: the batch as it is.

        What is no longer the split's own input is marked in `altered`, and a target that no longer holds is
        UNLABELLED; `weight` is of each example in the loss. Runs before every step, with the student in training mode.
        """
        raise NotImplementedError

    def teacher(self, inputs: Tensor) -> View:
        """Slot `teacher`; default: one look of the frozen teacher."""
        raise NotImplementedError

    def target(self, teacher: View, batch: Batch) -> Tensor:
        """Slot `target`, [N, K]; default: softmax(teacher logits / T)."""
        raise NotImplementedError

    def divergence(self, target: Tensor, student: View) -> Tensor:
        """Slot `divergence`, [N]; default: T^2 KL(target || softmax(student logits / T))."""
        raise NotImplementedError

    def weight(self, batch: Batch) -> tuple[Tensor | float, Tensor | float]:
        """Slot `weight`, (a, b) of the cross-entropy and of the divergence, each [N] or one number."""
        raise NotImplementedError

    def usual_weight(self) -> tuple[float, float] | None:
        """Of a method that fills `divergence`: (a, b) where no method fills `weight`; None leaves plain KD's."""
        return None

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        """Slot `feature`: named scalars, already times their lambda; default: none. Logits are the classes'."""
        raise NotImplementedError

    def head(self, embedding: Tensor) -> Tensor:
        """Slot `head`: embedding [N, D] to the logits that the divergence sees; default: the student's Linear."""
        raise NotImplementedError

    def class_logits(self, logits: Tensor) -> Tensor:
        """With slot `head`: its logits folded to [N, K], for the cross-entropy."""
        raise NotImplementedError

    def deployable(self, student: nn.Module) -> nn.Module:
        """With slot `head`: the network that ships, images to logits [N, K]; default: the student itself.

        Also asked of a method never prepared, for a network of the right shape, whose weights come from a file.
        """
        return student

    def trainable(self) -> Iterable[nn.Parameter]:
        """Parameters that the loop descends on beside the student's."""
        return ()

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        """After an epoch, before its validation."""

    def measures(self) -> dict[str, float]:
        """After training, at the best epoch: figures for the report, by name."""
        return {}

    def exhibits(self) -> tuple[Exhibit, ...]:
        """After training, at the best epoch: examples for the report."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs so that it does not differ, and a later stage so that it goes on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


def embedding_width(network: nn.Module, context: Context) -> int:
    """D of a network's embedding, by a look at one training example; the network's mode is put back."""
    batch = context.train.batch(torch.zeros(1, dtype=torch.int64), context.device)
    with evaluating(network), torch.no_grad():
        return look(network, batch.inputs).embedding.shape[1]
