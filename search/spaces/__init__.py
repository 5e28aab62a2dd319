"""Table of search spaces: each is a file and a line here, or of another package."""

from typing import Any

from edgestill.pipeline.errors import ConfigError, nearest
from edgestill.pipeline.frozen import Frozen, by_name
from edgestill.pipeline.plugins import Table, require_attributes, require_class, require_config, require_pair
from edgestill.search.space import SearchSpace
from edgestill.search.spaces.layers_of_teacher import LayersOfTeacherConfig, LayersOfTeacherSpace
from edgestill.search.spaces.mobile import MobileConfig, MobileSpace
from edgestill.search.spaces.nb201 import Nb201Config, Nb201Space
from edgestill.search.spaces.nni_families import FAMILIES
from edgestill.search.spaces.nni_hub import NniHubConfig, NniHubSpace
from edgestill.search.spaces.resnet import ResNetConfig, ResNetSpace
from edgestill.search.spaces.text_transformer import TextTransformerConfig, TextTransformerSpace
from edgestill.search.spaces.vit import VitConfig, VitSpace


def _line(name: str, found: Any) -> tuple[type[Any], type[SearchSpace]]:
    config, space = require_pair(found, "search space")
    require_class(space, SearchSpace)
    require_attributes(space, name)
    require_config(config, name, Frozen)
    return config, space


SPACES: Table[tuple[type[Any], type[SearchSpace]]] = Table("spaces", _line, {
    "resnet": (ResNetConfig, ResNetSpace),
    "nb201": (Nb201Config, Nb201Space),
    "mobile": (MobileConfig, MobileSpace),
    "vit": (VitConfig, VitSpace),
    "text_transformer": (TextTransformerConfig, TextTransformerSpace),
    "layers_of_teacher": (LayersOfTeacherConfig, LayersOfTeacherSpace),
    "nni": (NniHubConfig, NniHubSpace),
})  # fmt: skip


def make_space(config: Any) -> SearchSpace:
    """Make the space of a configuration."""
    kind: Any = SPACES[config.name][1]
    space: SearchSpace = kind(config)
    return space


def by_space_name(value: Any) -> Any:
    """Expand a short name: `resnet` to `{name: resnet}`, `nni:DARTS`, alone or as `name`, to NNI's space DARTS.

    Settings without a name are of `resnet`, the default, or of the first space that has them all.
    """
    value = by_name(value)
    if isinstance(value, dict) and "name" not in value:
        fitting = (name for name, (config, _) in SPACES.items() if value.keys() <= config.model_fields.keys())
        value = {"name": next(fitting, "resnet"), **value}
    name, colon, space = str(value.get("name", "")).partition(":") if isinstance(value, dict) else ("", "", "")
    return {**value, "name": name, "space": space} if colon and name == "nni" else value


def named_space(name: str) -> SearchSpace:
    """Make a space with its default choices from a name as read by `by_space_name`.

    Raises:
        ConfigError: there is no space of this name.
    """
    kind, _, hub = name.partition(":")
    if kind == "nni" and hub and hub not in FAMILIES:
        raise ConfigError([f"unknown space {hub!r} of NNI's hub; {nearest(hub, FAMILIES)}"])
    if kind not in SPACES or (hub and kind != "nni"):
        raise ConfigError([f"unknown space {name!r}; {nearest(name, SPACES)}"])
    return make_space(SPACES[kind][0].model_validate(by_space_name(name)))


__all__ = [
    "SPACES",
    "LayersOfTeacherConfig",
    "LayersOfTeacherSpace",
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
