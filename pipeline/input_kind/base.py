"""Contract of a kind of input: everything about a task's inputs that differs from kind to kind.

What a higher floor needs for a kind and a kind cannot hold, such as an exporter's wrapper, is a table by `name` there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

PADDING = 0  # the token id of padding

Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # of inputs [N, …], which it leaves as they are


class TaskFields(Protocol):
    """The fields of a task that describe its inputs, flat as its JSON is."""

    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def vocab_size(self) -> int | None: ...
    @property
    def tokenizer_sha256(self) -> str | None: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def cache(self) -> tuple[int, int, int] | None: ...


class Shown(NamedTuple):
    """An input as a person sees it: text, or pixels."""

    text: str = ""
    pixels: tuple[int, ...] = ()  # uint8, of shape `shape` flattened
    shape: tuple[int, ...] = ()  # C, H, W


@dataclass(frozen=True)
class InputKind(ABC):
    """Inputs of a task: all that is true of their kind, for the shape that the task gives them."""

    shape: tuple[int, ...]  # of one input, at its largest

    name: ClassVar[str]  # `kind` of a task in JSON
    plural: ClassVar[str]
    classifier: ClassVar[str]  # of these inputs, with its article, as a sentence begins
    values: ClassVar[str]  # numbers that an input consists of, and the limits that they stay in
    limits: ClassVar[str]
    dtype: ClassVar[str]  # of a batch, by numpy's name and torch's
    ports: ClassVar[tuple[str, ...]]  # names of an ONNX file's inputs; each has the batch's shape
    interfaces: ClassVar[tuple[str, ...]]  # of export/onnx/interface.py that a file may have
    script: ClassVar[str]  # of export/bundle/scripts, which runs a bundle's model
    files: ClassVar[tuple[str, ...]] = ()  # of a bundle, from which a model's inputs are made
    damages: ClassVar[Mapping[str, Damage]]  # for figures of robustness, by their names in reports
    accuracy: ClassVar[str] = "accuracy"  # name of the share of right answers
    unit: ClassVar[str] = "class"  # what an answer is one of
    units: ClassVar[str] = "classes"
    has_classes: ClassVar[bool] = True  # False where labels are tokens, of which most are rare
    continues: ClassVar[bool] = False  # True where an answer is appended to the input, to be asked again

    @classmethod
    @abstractmethod
    def of(cls, task: TaskFields) -> Self:
        """Make the inputs of a task.

        Raises:
            ValueError: the fields are those of another kind.
        """

    @property
    def length(self) -> int:
        """Largest number of positions, where shorter inputs are allowed; 0 where all have one shape."""
        return 0

    @abstractmethod
    def described(self) -> str:
        """Describe the inputs in words: `1×8×8 images`."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Describe a file's inputs for `bundle.json`."""

    def inputs_of_file(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and sides after the batch of each input of an ONNX file, at its largest."""
        return dict.fromkeys(self.ports, (self.dtype, self.shape))

    def outputs_of_file(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and sides after the batch of each output of an ONNX file beside the logits."""
        return {}

    @abstractmethod
    def shown(self, example: "Tensor", decode: Callable[[Sequence[int]], str] | None = None) -> Shown:
        """Make one input fit to be looked at.

        Args:
            decode: token ids to their text; None shows the ids themselves.
        """

    @abstractmethod
    def probes(self, count: int, seed: int = 0) -> np.ndarray:
        """Draw inputs [count, …] of varied content, to compare a model's answers on another machine.

        Equal seeds give equal inputs on every machine.
        """

    @abstractmethod
    def extremes(self) -> Iterator[tuple[str, "Tensor"]]:
        """Yield batches meant to break a file, with the name of each; names may recur."""

    @abstractmethod
    def is_within(self, inputs: np.ndarray) -> bool:
        """True if all values are within the limits."""

    @abstractmethod
    def fault(self, examples: np.ndarray, of: str) -> str | None:
        """Say in a sentence what makes examples unlike the training data or no inputs at all; None if nothing does.

        Args:
            examples: [N, …], of the right shape.
            of: their purpose, such as `calibration`, for the sentence.
        """


@dataclass(frozen=True)
class TokenIds(InputKind):
    """Token ids [T]; a batch may be shorter than T."""

    vocab_size: int  # number of token ids, padding included
    tokenizer_sha256: str | None = None  # of the tokenizer that gives the ids, if known

    values: ClassVar[str] = "token ids"
    limits: ClassVar[str] = "the vocabulary"
    dtype: ClassVar[str] = "int64"
    ports: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    interfaces: ClassVar[tuple[str, ...]] = ("raw",)
    files: ClassVar[tuple[str, ...]] = ("tokenizer.json",)

    @property
    def length(self) -> int:
        return self.shape[0]

    def described(self) -> str:
        return f"{self.plural} of up to {self.length} tokens from {self.vocab_size:,}"

    def description(self) -> dict[str, Any]:
        sides = {"dtype": self.dtype, "shape": ["batch", "length"], "max_length": self.length}
        return {"names": list(self.ports), **sides, "padding": PADDING, "tokenizer": self.files[0]}

    def shown(self, example: "Tensor", decode: Callable[[Sequence[int]], str] | None = None) -> Shown:
        ids = [int(number) for number in example if number != PADDING]
        return Shown(text=" ".join(map(str, ids)) if decode is None else decode(ids))

    def probes(self, count: int, seed: int = 0) -> np.ndarray:
        """Random tokens; lengths go from 1 to the longest."""
        rng = np.random.default_rng(seed)
        ids = rng.integers(1, self.vocab_size, (count, self.length))
        kept = np.linspace(1, self.length, count).round().astype(int)
        return np.where(np.arange(self.length) < kept[:, None], ids, PADDING).astype(np.int64)

    def extremes(self) -> Iterator[tuple[str, "Tensor"]]:
        """Padding alone, no padding at all, and shorter sequences."""
        import torch

        noise = torch.rand(7, *self.shape, generator=torch.Generator().manual_seed(0))
        yield "padding", torch.full((1, *self.shape), PADDING)
        ids = 1 + (noise * (self.vocab_size - 1)).long()
        yield "noise", ids
        for length in {1, (self.length + 1) // 2}:
            yield "shorter", ids[:, :length]

    def is_within(self, inputs: np.ndarray) -> bool:
        return bool(inputs.min() >= 0 and inputs.max() < self.vocab_size)

    def fault(self, examples: np.ndarray, of: str) -> str | None:
        if examples.dtype != self.dtype:
            return f"{of} examples are {examples.dtype}; token ids are {self.dtype}"
        if not self.is_within(examples):
            low, high = int(examples.min()), int(examples.max())
            return f"{of} examples hold token ids {low} to {high}; the vocabulary has {self.vocab_size}"
        return None
