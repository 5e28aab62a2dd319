"""Settings of the configured scorer, as a configuration and a search result hold them."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from edgestill.pipeline.frozen import Frozen
from edgestill.search.scorers import SCORERS


class HoldsScorerSettings(Frozen):
    """Base of models that hold a scorer's settings; empty settings are not written.

    The setting `combine` is older than this base and stays in a field of its own.
    """

    scorer_settings: dict[str, JsonValue] = Field({}, description="settings of the scorer, except combine")

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
