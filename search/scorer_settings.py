"""Settings of the configured scorer, as a configuration and a search result hold them."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from edgestill.pipeline.frozen import Frozen
from edgestill.search.scorers import SCORERS


class HoldsScorerSettings(Frozen):
    """Base of what holds a scorer's settings: they are written only if there are any.

    `combine`, which is older, stands in a field of its own.
    """

    scorer_settings: dict[str, JsonValue] = Field({}, description="of the scorer, but for combine")

    @model_serializer(mode="wrap")
    def _without_empty_settings(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialized(self)
        return {name: value for name, value in fields.items() if name != "scorer_settings" or value}


def scorer_config(scorer: str, combine: str, settings: Mapping[str, Any]) -> Any:
    """Return a scorer's `Config`; `combine` counts if that has such a setting.

    Raises:
        ValidationError: the scorer has no such settings.
    """
    kind = SCORERS[scorer].Config
    older = {"combine": combine} if "combine" in kind.model_fields else {}
    return kind.model_validate({**older, **settings})
