"""Statements only a model's maker can give, for the bundle's card and its licence fields."""

import re

from pydantic import Field, field_validator

from edgestill.pipeline.frozen import Frozen

_OWN = re.compile(r"LicenseRef-[A-Za-z0-9.-]+\Z")  # SPDX 2.3, annex D: a licence that is not on its list


class CardConfig(Frozen):
    intended: str | None = Field(None, max_length=2000, description="intended use of the model")
    limits: str | None = Field(None, max_length=2000, description="uses to avoid, and known failures of the model")
    data: str | None = Field(None, max_length=2000, description="origin and contents of the data")
    licence: str | None = Field(None, description="licence of the model; an SPDX expression such as Apache-2.0")
    data_licence: str | None = Field(None, description="licence of the data; an SPDX expression such as CC-BY-4.0")

    @field_validator("licence", "data_licence")
    @classmethod
    def _is_spdx(cls, expression: str | None) -> str | None:
        from cyclonedx.spdx import is_expression

        if not (expression is None or is_expression(expression) or _OWN.match(expression)):
            raise ValueError(f"{expression!r} is no SPDX licence expression, such as MIT or LicenseRef-ours")
        return expression
