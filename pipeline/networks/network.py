"""The contract of every classifier, views of one forward pass at three depths, and initialisations."""

# B batch, C channels, H W height and width, T tokens, D embedding width, K classes

import gc
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from edgestill.pipeline.networks import convolution
from edgestill.pipeline.randomness import drawn_from

convolution.guard()  # before any network computes

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

    features: Tensor  # [B, C, H, W] or [B, T, D], after the last layer and before pooling
    embedding: Tensor  # [B, D], the input of the last layer
    logits: Tensor  # [B, K]


def look(network: nn.Module, inputs: Tensor, rows: Tensor | None = None) -> View:
    """Run the network once and keep its features, embedding and logits.

    A network with a `look` of its own (pipeline/teachers/adapted) gives them itself.

    Args:
        rows: [R, 2] example and position of the features [B, T, D] that are the embeddings; None: the network's own
            pooling, one an example.
    """
    own = getattr(network, "look", None)
    if own is not None:
        return cast(View, own(inputs) if rows is None else own(inputs, rows))
    classifier = cast(Classifier, network)
    features = classifier.forward_features(inputs)
    embedding = classifier.forward_head(features, pre_logits=True) if rows is None else features[rows[:, 0], rows[:, 1]]
    return View(features, embedding, classifier.get_classifier()(embedding))


def logits_at(network: nn.Module, inputs: Tensor, rows: Tensor | None) -> Tensor:
    """Return the logits of each input, or of each row where there are several an input, as `look` does."""
    logits: Tensor = network(inputs) if rows is None else look(network, inputs, rows).logits
    return logits


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put networks in evaluation mode within, and restore every module's own mode afterwards."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


class Normalize(nn.Module):
    """Normalisation (x - mean) / std per channel; first layer of image networks, so that raw [0, 1] pixels go in."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.get_buffer("mean")) / self.get_buffer("std")


class BlockClassifier(nn.Module, ABC):
    """Base of every student: a stem, blocks one after the other, the mean over positions, and one Linear."""

    def __init__(self, num_classes: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.feature_dim = embedding_dim  # channels of the features; another number where layers follow the pooling
        self.linear = nn.Linear(embedding_dim, num_classes)

    @abstractmethod
    def forward_features(self, inputs: Tensor) -> Tensor:
        """Return features, [B, feature_dim, H', W'] for feature maps or [B, T, feature_dim] for tokens."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The blocks in order, without the stem: each reads the output of the one before."""

    def pool(self, features: Tensor) -> Tensor:
        """Reduce features to the embedding [B, D]."""
        return features.mean(dim=(2, 3) if features.dim() == 4 else 1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        embedding = self.pool(features)
        return embedding if pre_logits else self.linear(embedding)

    def get_classifier(self) -> nn.Module:
        return self.linear

    def forward(self, inputs: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(inputs))


class PooledClassifier(BlockClassifier):
    """Classifier of images. It normalises pixels before anything else; subclasses give the trunk."""

    def __init__(self, num_classes: int, embedding_dim: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(num_classes, embedding_dim)
        self.normalize = Normalize(mean, std)

    @abstractmethod
    def trunk(self, inputs: Tensor) -> Tensor:
        """Map normalised images [B, C, H, W] to features, [B, D, H', W'] after the last activation or [B, T, D]."""

    def forward_features(self, inputs: Tensor) -> Tensor:
        return self.trunk(self.normalize(inputs))


def initialise(network: nn.Module, how: Initialisation, seed: int) -> None:
    """Overwrite all parameters of a fresh network, with a generator seeded by `seed`.

    `gaussian`: all weights ~ N(0, 1), as DisWOT's official code draws convolution and linear weights before it scores
    (docs/explanation/scores.md). `kaiming`: convolution and linear weights ~ N(0, 2 / fan_out); token embeddings
    ~ N(0, 1); parameters of other modules, such as learnt positions, ~ N(0, 0.02^2) (Dosovitskiy et al. 2021,
    arXiv:2010.11929). fan_out is the number of products that one input unit enters, so a depthwise 3x3 convolution
    has 9 (torch's own `kaiming_normal_` says 9 times the channels: it leaves the groups out). In both, norm scales are
    1; biases, norm shifts and the embedding of padding are 0.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name.endswith("bias"):
                    parameter.zero_()
                elif isinstance(module, _NORMS):
                    parameter.fill_(1)
                else:
                    std = 1.0 if how == "gaussian" else _kaiming_std(module, name, parameter)
                    parameter.normal_(0, std, generator=generator)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()


_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def _kaiming_std(module: nn.Module, name: str, parameter: Tensor) -> float:
    if isinstance(module, nn.Embedding):
        return 1.0
    if isinstance(module, nn.MultiheadAttention) and name.endswith("proj_weight"):
        fan_out = module.embed_dim  # in_proj_weight is three matrices, one above the other
    elif isinstance(module, nn.modules.conv._ConvNd):
        fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
    elif isinstance(module, nn.Linear):
        fan_out = module.out_features
    else:
        return 0.02
    return math.sqrt(2.0) / math.sqrt(fan_out)


@contextmanager
def uninitialised(seed: int = 0) -> Iterator[None]:
    """Build networks within without PyTorch's own drawing of weights, as `initialise` overwrites them anyway.

    All other random draws come from the seed. The garbage collector is off within: building a network makes thousands
    of small objects, for which it would scan everything that importing torch made.
    """
    kinds: tuple[tuple[Any, str], ...] = (
        (nn.Conv2d, "reset_parameters"),
        (nn.Linear, "reset_parameters"),
        (nn.Embedding, "reset_parameters"),
        (nn.MultiheadAttention, "_reset_parameters"),
    )
    originals = [(kind, name, getattr(kind, name)) for kind, name in kinds]
    was_collecting = gc.isenabled()
    with drawn_from(seed):
        try:
            gc.disable()
            for kind, name in kinds:
                setattr(kind, name, lambda self: None)
            yield
        finally:
            for kind, name, original in originals:
                setattr(kind, name, original)
            if was_collecting:
                gc.enable()
