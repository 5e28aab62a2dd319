"""The contract every classifier keeps, one forward pass seen at three depths, and initialisations."""

# B batch, C channels, H W height and width, D embedding width, K classes

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

Initialisation = Literal["gaussian", "kaiming"]


@runtime_checkable
class Classifier(Protocol):
    """timm's contract, so that a timm model is a teacher as it stands."""

    num_classes: int

    def forward_features(self, inputs: Tensor) -> Tensor: ...  # [B, C, H, W] or [B, T, D]
    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor: ...  # [B, K], or [B, D]
    def get_classifier(self) -> nn.Module: ...


class View(NamedTuple):
    """One forward pass, seen at three depths."""

    features: Tensor  # [B, C, H, W], after the last activation and before pooling
    embedding: Tensor  # [B, D], what the classifier reads
    logits: Tensor  # [B, K]


def look(network: nn.Module, inputs: Tensor) -> View:
    """Run the network once and keep its features, embedding and logits."""
    classifier = cast(Classifier, network)
    features = classifier.forward_features(inputs)
    embedding = classifier.forward_head(features, pre_logits=True)
    return View(features, embedding, classifier.get_classifier()(embedding))


class Normalize(nn.Module):
    """(x - mean) / std per channel; the first layer of every network, so that raw [0, 1] pixels go in."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.get_buffer("mean")) / self.get_buffer("std")


class PooledClassifier(nn.Module, ABC):
    """A convolutional trunk, global average pooling and one Linear; subclasses give the trunk."""

    def __init__(self, num_classes: int, embedding_dim: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.normalize = Normalize(mean, std)
        self.linear = nn.Linear(embedding_dim, num_classes)

    @abstractmethod
    def trunk(self, inputs: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to post-activation features [B, D, H', W']."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The trunk's blocks in order, without the stem: each reads the output of the one before."""

    def forward_features(self, inputs: Tensor) -> Tensor:
        return self.trunk(self.normalize(inputs))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        embedding = features.mean(dim=(2, 3))
        return embedding if pre_logits else self.linear(embedding)

    def get_classifier(self) -> nn.Module:
        return self.linear

    def forward(self, inputs: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(inputs))


def initialise(network: nn.Module, how: Initialisation, seed: int) -> None:
    """Overwrite all weights of a fresh network, from a generator of its own.

    `gaussian`: convolution and linear weights ~ N(0, 1), as DisWOT's official code does before it scores
    (docs/scores.md). `kaiming`: N(0, 2 / fan_out). Biases are 0, batch-norm scales 1 and shifts 0 in both.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                if how == "gaussian":
                    module.weight.normal_(generator=generator)
                else:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
                if module.bias is not None:
                    module.bias.zero_()


@contextmanager
def uninitialised() -> Iterator[None]:
    """Build networks without PyTorch's own drawing of weights, for when `initialise` overwrites it anyway.

    It also keeps such networks from using up the global generator.
    """
    kinds = (nn.Conv2d, nn.Linear)
    originals = [(kind, kind.reset_parameters) for kind in kinds]
    try:
        for kind in kinds:
            kind.reset_parameters = lambda self: None  # type: ignore[method-assign]
        yield
    finally:
        for kind, original in originals:
            kind.reset_parameters = original  # type: ignore[method-assign]
