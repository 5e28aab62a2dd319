"""A student made of layers of another classifier, and classifiers without weights to make such students from."""

# B batch, T tokens, D width

from typing import cast

import torch
from torch import Tensor, nn

from edgestill.pipeline.networks.encoder_layers import (
    Layers,
    find_layers,
    keep_heads,
    keep_layers,
    keep_neurons,
    spread,
)
from edgestill.pipeline.networks.network import BlockClassifier, Classifier

_STD = 0.02  # of learnt positions and class tokens, as in BERT and ViT


class LayersOfTeacher(BlockClassifier):
    """Classifier that is another one with fewer layers, heads and neurons.

    Args:
        whole: goes on from its own features, and has no classifier any more: its head gives the embedding.
        layers: those that `whole` has left.
    """

    def __init__(self, whole: nn.Module, layers: Layers, linear: nn.Linear) -> None:
        super().__init__(linear.out_features, linear.in_features)
        self.whole, self._path = whole, layers.path
        self.linear = linear

    def forward_features(self, inputs: Tensor) -> Tensor:
        return cast(Classifier, self.whole).forward_features(inputs)

    def pool(self, features: Tensor) -> Tensor:
        return cast(Classifier, self.whole).forward_head(features, pre_logits=True)

    def blocks(self) -> list[nn.Module]:
        return list(cast(nn.ModuleList, self.whole.get_submodule(self._path)))


def cut(
    whole: nn.Module, linear: nn.Linear, layers: int, heads: int | None = None, feed_forward: int | None = None
) -> LayersOfTeacher:
    """Make a student of a classifier by cutting it, in place.

    Args:
        whole: without its classifier, which is `linear`.
        layers: number of layers to keep, evenly spaced.
        heads: number of heads to keep in each layer; None: all.
        feed_forward: quarters of each layer's feed-forward neurons to keep; None: all.
    """
    found = find_layers(whole)
    assert found is not None
    keep_layers(whole, found, spread(found.depth, layers))
    student = LayersOfTeacher(whole, found._replace(depth=layers), linear)
    for layer in student.blocks():
        if heads is not None:
            keep_heads(layer, heads)
        if feed_forward is not None:
            keep_neurons(layer, feed_forward)
    return student


def hollow(network: nn.Module) -> nn.Module:
    """Take the matrices out of a network; their shapes stay, as do vectors and buffers. All of it can be trained.

    A teacher from elsewhere may be frozen, which its students are not.
    """
    for module in network.requires_grad_(True).modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() > 1:
                module.register_parameter(name, nn.Parameter(parameter.detach().to("meta")))
    return network


def filled(network: nn.Module) -> nn.Module:
    """Draw every layer anew, as torch draws its own; of other parameters the lacking matrices, N(0, 0.02^2)."""
    for module in network.modules():
        own = list(module.named_parameters(recurse=False))
        lacking = [name for name, one in own if one.is_meta]
        for name in lacking:
            made = nn.Parameter(torch.empty(module.get_parameter(name).shape))
            module.register_parameter(name, made)
        if own:
            _draw(module, lacking)
    return network


def _draw(module: nn.Module, names: list[str]) -> None:
    reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
    if reset is not None:
        reset()
        return
    for name in names:
        nn.init.normal_(module.get_parameter(name), std=_STD)


def without_dropout(network: LayersOfTeacher) -> LayersOfTeacher:
    """Turn all dropout off, in place, so that training draws nothing."""
    for module in network.modules():
        for name in ("p", "drop_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return network
