"""The table of search spaces: a file and a line each."""

from typing import Any

from search.space import SearchSpace
from search.spaces.mobile import MobileConfig, MobileSpace
from search.spaces.nb201 import Nb201Config, Nb201Space
from search.spaces.resnet import ResNetConfig, ResNetSpace
from search.spaces.text_transformer import TextTransformerConfig, TextTransformerSpace
from search.spaces.vit import VitConfig, VitSpace

SPACES: dict[str, tuple[type[Any], type[SearchSpace]]] = {
    "resnet": (ResNetConfig, ResNetSpace),
    "nb201": (Nb201Config, Nb201Space),
    "mobile": (MobileConfig, MobileSpace),
    "vit": (VitConfig, VitSpace),
    "text_transformer": (TextTransformerConfig, TextTransformerSpace),
}


def make_space(config: Any) -> SearchSpace:
    """The space of a configuration."""
    kind: Any = SPACES[config.name][1]
    space: SearchSpace = kind(config)
    return space


__all__ = [
    "SPACES",
    "MobileConfig",
    "MobileSpace",
    "Nb201Config",
    "Nb201Space",
    "ResNetConfig",
    "ResNetSpace",
    "TextTransformerConfig",
    "TextTransformerSpace",
    "VitConfig",
    "VitSpace",
    "make_space",
]
