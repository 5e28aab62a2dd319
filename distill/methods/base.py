"""Contract of a method: it fills one slot of the equation, or a few, and leaves the rest alone.

    L = mean_n [ a_n CE(head(x_n), y_n) + b_n D(target_n, s_n) ] + sum_j lambda_j R_j(features)

Target and divergence read the logits as slot `logits` transforms them. Slot `objective` takes the place of all between
the brackets.

A method overrides the hooks of the slots in its `fills`, and nothing else. The equation itself is assembled in
`distill/recipe.py`, never in a method.
"""

# N examples, K classes, D embedding width

from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from edgestill.distill.methods.facts import Facts
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.task import KindName, Task
from edgestill.pipeline.teachers.teacher import Part
from edgestill.pipeline.training.objective import Moment

Slot = Literal["data", "teacher", "logits", "target", "divergence", "weight", "feature", "head", "objective"]
SLOTS: tuple[Slot, ...] = get_args(Slot)


class MethodConfig(Frozen):
    """A method's hyperparameters, each declared with `tunable` or a plain Field."""

    name: str = ""  # each method's own, as a Literal

    def unread(self) -> frozenset[str]:
        """Names of hyperparameters without effect under the present settings of the others; they are not tuned."""
        return frozenset()


@dataclass(frozen=True)
class Context:
    """Networks and data for a method to read before the first epoch, and to keep. The test split is not among them."""

    task: Task
    teacher: nn.Module  # frozen
    student: nn.Module  # the one that the loop trains
    train: ImageSplit
    reference: ImageSplit
    device: torch.device
    seed: int
    deployable: Callable[[], nn.Module]  # the student as it would ship now: inputs to logits [N, K], whatever the head
    teacher_view: Callable[[Batch], View]  # a batch to the teacher's outputs, cached or not
    decode: Callable[[Sequence[int]], str] | None = None  # of text: token ids back to words
    outputs_folder: Path | None = None  # keeps the teacher's outputs between runs; None: nothing is kept
    is_taught: bool = False  # this recipe trained the student before; methods go on from that state

    def show(self, example: Tensor, caption: str) -> "ExhibitItem":
        """Make a report item of one input: pixels of an image [C, H, W], or text of token ids [T].

        Without `decode`, the text is the ids themselves.
        """
        return ExhibitItem(caption=caption, **self.task.inputs.shown(example, self.decode)._asdict())


class Exhibit(Frozen):
    """Examples of a method for the report."""

    title: str
    note: str  # describes the examples in a sentence or two
    items: tuple["ExhibitItem", ...]


class ExhibitItem(Frozen):
    caption: str
    text: str = ""  # of a text task
    pixels: tuple[int, ...] = ()  # uint8, of shape `shape` flattened
    shape: tuple[int, ...] = ()  # C, H, W


class Method(ABC):
    """Base of the methods. Override the hooks of the slots in `fills`; each docstring names the slot's default."""

    name: ClassVar[str]
    paper: ClassVar[str]  # authors, year, arXiv id
    fills: ClassVar[frozenset[Slot]]
    facts: ClassVar[Facts | None] = None  # every method of ours has them
    inputs: ClassVar[KindName | None] = None  # the only kind of input that it works on; None: any
    min_classes: ClassVar[int] = 2
    reads_features: ClassVar[bool] = False  # with slot `feature`: reads the teacher's feature maps too
    studies_teacher: ClassVar[bool] = False  # reads the context's teacher itself, not only slot `teacher`
    takes_rows: ClassVar[bool] = False  # works where an example has several rows of logits, as a text has in training
    rows_alone: ClassVar[bool] = False  # a row's terms depend on that row alone: rows may be computed in parts
    own_samples: ClassVar[int] = 0  # of the student's, of each prompt, that it cannot do without
    is_of_itself: ClassVar[bool] = False  # distils a student into itself, which then must begin with weights
    ships_layers: ClassVar[bool] = False  # with slot `head`: more than a classifier, so that fine-tuning cannot go on
    to_shrink: ClassVar[str] = ""  # with slot `head`: how a user makes it smaller, such as "set fewer subclasses"
    Config: ClassVar[type[MethodConfig]]

    def __init__(self, config: Any = None) -> None:
        self.config: Any = config or self.Config()

    @property
    def replaces_teacher(self) -> bool:
        """True if its teacher is not the context's. Methods with `studies_teacher` read the context's: a conflict."""
        return "teacher" in self.fills

    @property
    def varies_teacher(self) -> bool:
        """With slot `teacher`: True if its answer to an input changes after `prepare`, so that none can be cached."""
        return True

    @property
    def spares_teacher(self) -> bool:
        """True if training needs no outputs of the teacher for this method's slots; the recipe may then not look."""
        return False

    @property
    def binds_rows(self) -> bool:
        """True if it prepares something for each answer of the data, which a student's own samples have not."""
        return False

    @property
    def needs(self) -> frozenset[Part]:
        """Parts of the teacher that it reads beside logits; a teacher that lacks one is refused at the start."""
        parts: set[Part] = {"features"} if self.reads_features else set()
        return frozenset(parts | ({"embedding"} if self.studies_teacher else set()))

    def conflicts(self, others: Sequence["Method"]) -> Iterable[str]:
        """Give a sentence for each other method that this one cannot be used with, beyond those in its slots."""
        return ()

    def cautions(self, others: Sequence["Method"]) -> Iterable[str]:
        """Give a sentence for each other method that this one gains nothing from; the run goes on."""
        return ()

    def check(self, task: Task, train: ImageSplit) -> None:
        """Refuse a task, data or environment unfit for the method. Runs before any training, and before `prepare`.

        Raises:
            ConfigError: the task or the training split does not fit the configuration.
            MissingDependencyError: an optional library is not installed.
        """

    def prepare(self, context: Context) -> None:
        """Make the method's own modules, for a state to be loaded into. Runs before the first epoch of any training."""

    def study(self, context: Context) -> None:
        """Learn from teacher and data, once for a student. Runs after `prepare`.

        Left out if `load_state_dict` restores the result: the student's weights were trained with that.
        """

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Slot `data`; default: the batch as it is.

        Inputs no longer the split's own are marked in `altered`, and targets no longer true are UNLABELLED; `weight`
        is each example's in the loss. Runs before every step, with the student in training mode.
        """
        raise NotImplementedError

    def teacher(self, inputs: Tensor) -> View:
        """Slot `teacher`; default: one forward pass of the frozen teacher."""
        raise NotImplementedError

    def teacher_on(self, batch: Batch) -> View:
        """With slot `teacher`: its outputs on a batch, of one that reads more than inputs; default: `teacher`."""
        return self.teacher(batch.inputs)

    def logits(self, logits: Tensor) -> Tensor:
        """Slot `logits`: the teacher's or the student's, [N, K], as target, divergence and objective read them.

        The default leaves them as they are.
        """
        raise NotImplementedError

    def fallback(self) -> "Method | None":
        """With slot `logits`, `target` or `divergence`: the method for what no other fills of these; None: plain KD.

        Where two methods fill target and divergence, both use the temperature of the target's.
        """
        return None

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        """Slot `target`, [N, K]; default: softmax(teacher logits / T). No gradient flows through it."""
        raise NotImplementedError

    def divergence(self, target: Tensor, student: View) -> Tensor:
        """Slot `divergence`, [N]; default: T^2 KL(target || softmax(student logits / T))."""
        raise NotImplementedError

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[Tensor | float, Tensor | float]:
        """Slot `weight`, (a, b) of the cross-entropy and of the divergence, each [N] or one number.

        The views carry no gradient; `student` has class logits.
        """
        raise NotImplementedError

    def objective(self, teacher: View, student: View, batch: Batch) -> Tensor:
        """Slot `objective`, [N]: in the place of cross-entropy and divergence; `student` has class logits."""
        raise NotImplementedError

    def usual_weight(self) -> tuple[float, float] | None:
        """Weights (a, b) usual with this method's `divergence`, if no method fills `weight`; None: plain KD's."""
        return None

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        """Slot `feature`: named scalars, already times their lambda; default: none. `student` has class logits."""
        raise NotImplementedError

    def watching(self, student: nn.Module) -> AbstractContextManager[None]:
        """With slot `feature`: what to have in place while the student runs, such as hooks; gone again afterwards.

        A student that is watched runs uncompiled and on one GPU.
        """
        return nullcontext()

    def head_of(self, student: View) -> Tensor:
        """With slot `head`: its logits, of a student with features; default: `head` of the embedding."""
        return self.head(student.embedding)

    def head(self, embedding: Tensor) -> Tensor:
        """Slot `head`: embedding [N, D] to the logits for the divergence; default: the student's Linear."""
        raise NotImplementedError

    def class_logits(self, logits: Tensor) -> Tensor:
        """With slot `head`: its logits folded to [N, K], for the cross-entropy."""
        raise NotImplementedError

    def deployable(self, student: nn.Module) -> nn.Module:
        """With slot `head`: the network that ships, images to logits [N, K]; default: the student itself.

        Also called without `prepare`, for a network of the right shape, to be filled with weights from a file.
        """
        return student

    def order(self, epoch: int, generator: torch.Generator) -> Tensor | None:
        """Positions of the epoch's training examples in their order; None: each once, shuffled."""
        return None

    def combine_gradients(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Combine the gradients of the loss terms, each [P] over all trained parameters; default: their sum.

        A method that overrides it costs a backward pass for each term.
        """
        return torch.stack(list(gradients.values())).sum(0)

    def trainable(self) -> Iterable[nn.Parameter]:
        """Parameters for the loop to train beside the student's."""
        return ()

    def extras(self) -> Mapping[str, nn.Module]:
        """Modules that learn beside the student, by the loop or by the method itself, by name."""
        return {}

    def tick(self, moment: Moment) -> None:
        """Run after a step of the optimizer."""

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        """Run after an epoch, before its validation."""

    def measures(self) -> dict[str, float]:
        """Figures for the report, by name. Asked for after training, at the best epoch."""
        return {}

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Examples for the report. Asked for after training, at the best epoch."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run to end as an undisturbed one does, and for a later stage to go on from."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state given by `state_dict`."""


def embedding_width(network: nn.Module, context: Context) -> int:
    """Width D of a network's embedding, from one training example; the network's mode is restored."""
    batch = context.train.batch(torch.zeros(1, dtype=torch.int64), context.device)
    with evaluating(network), torch.no_grad():
        return look(network, batch.inputs).embedding.shape[1]
