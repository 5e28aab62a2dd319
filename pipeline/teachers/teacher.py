"""The contract of a family of teachers: its settings, how it builds a network for a task, and how it loads weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.encoder_layers import EncoderSizes
from edgestill.pipeline.runs.checkpoint import load_tensors, load_weights, read_metadata
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.config import TrainingConfig

# Parts of a teacher that a method may read: its last Linear's input, the maps before pooling, the last Linear itself,
# gradients by inputs or weights, and answers to inputs other than the data's own.
Part = Literal["logits", "embedding", "features", "classifier", "gradients", "inputs"]
PARTS: frozenset[Part] = frozenset({"logits", "embedding", "features", "classifier", "gradients", "inputs"})
SCORED: frozenset[Part] = frozenset({"embedding"})  # what scorers of students read of a trained teacher
DRAWN: frozenset[Part] = frozenset({"gradients", "embedding", "features"})  # and of one whose weights they draw


class FamilyConfig(Frozen):
    """Settings of every family. A family's own adds its settings, and a `name`, by which a configuration chooses it."""

    training: TrainingConfig = TrainingConfig()
    check: Literal["error", "caution", "off"] = Field(
        "error", description="answer to given weights that are useless on validation, or better if read in another way"
    )
    order: tuple[int, ...] | None = Field(
        None, description="the data's class that each class of given weights is, by number; null: the same order"
    )


class Teacher(ABC):
    """A configured teacher. Each family is a subclass, and a line in the table of `pipeline/teachers/__init__.py`.

    Override `build` and the properties; the other methods have defaults that fit a network trained here.
    """

    Config: ClassVar[type[Frozen]]  # a FamilyConfig with `name`; the first three families share TeacherConfig instead
    kinds: ClassVar[frozenset[str]]  # of input that its networks take
    architectures: ClassVar[tuple[str, ...]] = ()  # names for `teacher.architecture`
    example: ClassVar[Mapping[str, Any]] = {}  # settings that need no file, for the conformance suite
    short: ClassVar[str] = ""  # key of the configuration that TEXT is, in the short form `name:TEXT`

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the network for people, and in the metadata of its weights."""

    @property
    @abstractmethod
    def source(self) -> Path | None:
        """File with the weights; None trains them here."""

    @property
    def is_trained(self) -> bool:
        """True if the network brings its weights; False trains it here."""
        return self.source is not None

    @property
    def is_network(self) -> bool:
        """True unless it is answers alone, with no cost and no speed of its own."""
        return True

    @property
    def exports(self) -> bool:
        """True if the network has an ONNX form, to be timed by."""
        return self.is_network

    @property
    def gives(self) -> frozenset[Part]:
        """Parts that the network can give, as far as the configuration tells; a network's own `gives` tells all."""
        return PARTS

    @property
    def has_layers(self) -> bool:
        """True if networks of this family may have equal encoder layers: `encoder_sizes` then tells."""
        return type(self).encoder_sizes is not Teacher.encoder_sizes

    def encoder_sizes(self) -> EncoderSizes | None:
        """Sizes of the network's equal encoder layers, from the configuration and its files; None: it has none.

        Raises:
            CheckpointError, MissingDependencyError: the files cannot be read.
        """
        return None

    @property
    def source_name(self) -> str:
        """Name for people of the place that the weights come from; empty if they are trained here."""
        return "" if self.source is None else self.source.name

    @property
    def hub_id(self) -> str | None:
        """Id on the Hugging Face hub of the weights that it brings or starts from; None: they are not from there."""
        return None

    @property
    def tokenizer(self) -> Path | None:
        """File of the tokenizer that the weights were trained with, and the student must share; None: the data's."""
        return None

    @abstractmethod
    def build(self, task: Task) -> nn.Module:
        """Build the network for a task, with fresh weights; it takes `task.inputs` and gives logits [B, K].

        Its methods are those of `pipeline/networks/network.py::Classifier`. Draws come from torch's own generator.

        Raises:
            CheckpointError: the settings do not fit the task.
        """

    def load(self, task: Task, path: Path) -> nn.Module:
        """Build the network with the weights of a file: `source`, or the copy that a run keeps of them.

        Raises:
            CheckpointError: the file does not fit, or `check` refuses it.
        """
        network = self.build(task)
        load_weights(network, path)
        self.check(read_metadata(path), task, path)
        return network

    def restored(self, task: Task, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
        """Build the network with the tensors of a run's copy, of a member of an ensemble.

        Args:
            path: the file that they are from, for errors.

        Raises:
            CheckpointError: they do not fit.
        """
        network = self.build(task)
        load_tensors(network, tensors, path)
        return network

    def read(self, task: Task) -> nn.Module:
        """Build the network with the weights that it brings. Only for one that `is_trained`.

        Raises:
            CheckpointError: the weights do not fit.
        """
        assert self.source is not None
        return self.load(task, self.source)

    def count(self, task: Task) -> tuple[int, int] | None:
        """Count the network's parameters and multiply-accumulates; None: `networks.cost.measure_cost` counts them."""
        return None

    def meet(self, network: nn.Module, splits: Iterable[Any]) -> None:
        """Show the network the examples of some `ImageSplit`s; one that knows examples by name needs that.

        Raises:
            CheckpointError: it does not know one.
        """

    def metadata(self, task: Task) -> dict[str, str]:
        """Facts to write with the weights, by which `check` knows them again."""
        return {"architecture": self.title, "input_shape": "x".join(map(str, task.input_shape))}

    def check(self, metadata: Mapping[str, str], task: Task, path: Path) -> None:
        """Refuse weights for other inputs than the task's. `metadata` is empty for a file from elsewhere.

        Raises:
            CheckpointError: the weights were trained on other inputs.
        """

    def refusal(self, task: Task, fitting: Sequence[str]) -> str:
        """Sentence for a task whose kind of input is none of `kinds`.

        Args:
            fitting: architectures of all families that take it.
        """
        return f"teacher.architecture: {self.title} takes no {task.kind}; those that do: {', '.join(fitting)}"


class FileTeacher(Teacher):
    """A teacher that is a file, `file` of its configuration."""

    short = "file"

    @property
    def title(self) -> str:
        return str(self.config.file.name)

    @property
    def source(self) -> Path | None:
        return Path(self.config.file)


def frozen(network: nn.Module) -> nn.Module:
    """Put a network in evaluation mode and turn its gradients off, as a teacher is used."""
    return network.eval().requires_grad_(False)
