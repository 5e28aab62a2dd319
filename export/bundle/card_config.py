"""Statements only a model's maker can give, for the bundle's card and its licence fields."""

import re
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, field_validator, model_serializer

from edgestill.pipeline.frozen import Frozen

_OWN = re.compile(r"LicenseRef-[A-Za-z0-9.-]+\Z")  # SPDX 2.3, annex D: a licence that is not on its list

HUB_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?"  # on the hub: name, or owner/name
_HubId = Annotated[str, StringConstraints(pattern=rf"^{HUB_ID}$")]
_Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:+-]{0,49}$")]


class CardConfig(Frozen):
    intended: str | None = Field(None, max_length=2000, description="intended use of the model")
    limits: str | None = Field(None, max_length=2000, description="uses to avoid, and known failures of the model")
    data: str | None = Field(None, max_length=2000, description="origin and contents of the data")
    licence: str | None = Field(None, description="licence of the model; an SPDX expression such as Apache-2.0")
    data_licence: str | None = Field(None, description="licence of the data; an SPDX expression such as CC-BY-4.0")
    base_model: _HubId | None = Field(
        None, description="the teacher's id on the Hugging Face hub; null: as the teacher's settings tell"
    )
    datasets: tuple[_HubId, ...] = Field(
        (), max_length=20, description="ids of the data on the hub; empty: as the data's settings tell"
    )
    tags: tuple[_Tag, ...] = Field((), max_length=50, description="further tags for the hub")

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields at their defaults: digests of earlier versions' configurations stay the same."""
        written: dict[str, Any] = handler(self)
        for name in ("base_model", "datasets", "tags"):
            if not getattr(self, name):
                written.pop(name, None)
        return written

    @field_validator("licence", "data_licence")
    @classmethod
    def _is_spdx(cls, expression: str | None) -> str | None:
        from cyclonedx.spdx import is_expression

        if not (expression is None or is_expression(expression) or _OWN.match(expression)):
            raise ValueError(f"{expression!r} is no SPDX licence expression, such as MIT or LicenseRef-ours")
        return expression
