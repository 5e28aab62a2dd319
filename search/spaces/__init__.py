"""Table of search spaces: each is a file and a line here, or of another package."""

from typing import Any

from pydantic import ValidationError

from edgestill.pipeline.errors import ConfigError, nearest
from edgestill.pipeline.frozen import Frozen, by_name, first_problem
from edgestill.pipeline.plugins import Table, require_attributes, require_class, require_config, require_pair
from edgestill.search.space import SearchSpace
from edgestill.search.spaces.backbones import BackbonesConfig, BackbonesSpace
from edgestill.search.spaces.causal_transformer import CausalTransformerConfig, CausalTransformerSpace
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
    "causal_transformer": (CausalTransformerConfig, CausalTransformerSpace),
    "layers_of_teacher": (LayersOfTeacherConfig, LayersOfTeacherSpace),
    "nni": (NniHubConfig, NniHubSpace),
    "backbones": (BackbonesConfig, BackbonesSpace),
})  # fmt: skip


def make_space(config: Any) -> SearchSpace:
    """Make the space of a configuration."""
    kind: Any = SPACES[config.name][1]
    space: SearchSpace = kind(config)
    return space


def by_space_name(value: Any) -> Any:
    """Expand a short name: `resnet` to `{name: resnet}`, `nni:DARTS`, alone or as `name`, to NNI's space DARTS.

    The key that the text after a colon is for is `short` of the space's configuration.

    Settings without a name are of `resnet`, the default, or of the first space that has them all.
    """
    value = by_name(value)
    if isinstance(value, dict) and "name" not in value:
        fitting = (name for name, (config, _) in SPACES.items() if value.keys() <= config.model_fields.keys())
        value = {"name": next(fitting, "resnet"), **value}
    name, colon, text = str(value.get("name", "")).partition(":") if isinstance(value, dict) else ("", "", "")
    short = _short(name) if colon else ""
    return {**value, "name": name, short: text} if short else value


def _short(name: str) -> str:
    return getattr(SPACES[name][0], "short", "") if name in SPACES else ""


def named_space(name: str) -> SearchSpace:
    """Make a space with its default choices from a name as read by `by_space_name`.

    Raises:
        ConfigError: there is no space of this name.
    """
    kind, _, text = name.partition(":")
    if kind == "nni" and text and text not in FAMILIES:
        raise ConfigError([f"unknown space {text!r} of NNI's hub; {nearest(text, FAMILIES)}"])
    if kind not in SPACES or (text and not _short(kind)):
        raise ConfigError([f"unknown space {name!r}; {nearest(name, SPACES)}"])
    try:
        return make_space(SPACES[kind][0].model_validate(by_space_name(name)))
    except ValidationError as error:
        raise ConfigError([f"space {name!r}: {first_problem(error)}"]) from None


__all__ = [
    "SPACES",
    "BackbonesConfig",
    "BackbonesSpace",
    "CausalTransformerConfig",
    "CausalTransformerSpace",
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
