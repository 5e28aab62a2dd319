"""The table of search spaces: a file and a line each."""

from typing import Any

from search.space import SearchSpace
from search.spaces.nb201 import Nb201Config, Nb201Space
from search.spaces.resnet import ResNetConfig, ResNetSpace

SPACES: dict[str, tuple[type[Any], type[SearchSpace]]] = {
    "resnet": (ResNetConfig, ResNetSpace),
    "nb201": (Nb201Config, Nb201Space),
}


def make_space(config: Any) -> SearchSpace:
    """The space of a configuration."""
    kind: Any = SPACES[config.name][1]
    space: SearchSpace = kind(config)
    return space


__all__ = ["SPACES", "Nb201Config", "Nb201Space", "ResNetConfig", "ResNetSpace", "make_space"]
