"""The table of search spaces: a file and a line each."""

from typing import Any

from pipeline.errors import ConfigError, nearest
from pipeline.frozen import by_name
from search.space import SearchSpace
from search.spaces.mobile import MobileConfig, MobileSpace
from search.spaces.nb201 import Nb201Config, Nb201Space
from search.spaces.nni_families import FAMILIES
from search.spaces.nni_hub import NniHubConfig, NniHubSpace
from search.spaces.resnet import ResNetConfig, ResNetSpace
from search.spaces.text_transformer import TextTransformerConfig, TextTransformerSpace
from search.spaces.vit import VitConfig, VitSpace

SPACES: dict[str, tuple[type[Any], type[SearchSpace]]] = {
    "resnet": (ResNetConfig, ResNetSpace),
    "nb201": (Nb201Config, Nb201Space),
    "mobile": (MobileConfig, MobileSpace),
    "vit": (VitConfig, VitSpace),
    "text_transformer": (TextTransformerConfig, TextTransformerSpace),
    "nni": (NniHubConfig, NniHubSpace),
}


def make_space(config: Any) -> SearchSpace:
    """The space of a configuration."""
    kind: Any = SPACES[config.name][1]
    space: SearchSpace = kind(config)
    return space


def by_space_name(value: Any) -> Any:
    """`resnet` stands for `{name: resnet}`, and `nni:DARTS`, there or alone, for NNI's space of that name."""
    value = by_name(value)
    name, colon, space = str(value.get("name", "")).partition(":") if isinstance(value, dict) else ("", "", "")
    return {**value, "name": name, "space": space} if colon and name == "nni" else value


def named_space(name: str) -> SearchSpace:
    """A space with its own choices, by the name that `by_space_name` reads.

    Raises:
        ConfigError: there is none of that name.
    """
    kind, _, hub = name.partition(":")
    if kind == "nni" and hub and hub not in FAMILIES:
        raise ConfigError([f"unknown space {hub!r} of NNI's hub; {nearest(hub, FAMILIES)}"])
    if kind not in SPACES or (hub and kind != "nni"):
        raise ConfigError([f"unknown space {name!r}; {nearest(name, SPACES)}"])
    return make_space(SPACES[kind][0].model_validate(by_space_name(name)))


__all__ = [
    "SPACES",
    "MobileConfig",
    "MobileSpace",
    "Nb201Config",
    "Nb201Space",
    "NniHubConfig",
    "NniHubSpace",
    "ResNetConfig",
    "ResNetSpace",
    "TextTransformerConfig",
    "TextTransformerSpace",
    "VitConfig",
    "VitSpace",
    "by_space_name",
    "make_space",
    "named_space",
]
