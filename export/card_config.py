"""What only the maker of a model can say about it; the bundle's card and its licence fields take it from here."""

from pydantic import Field, field_validator

from pipeline.frozen import Frozen


class CardConfig(Frozen):
    intended: str | None = Field(None, max_length=2000, description="what the model is meant for")
    limits: str | None = Field(None, max_length=2000, description="what it must not be used for, where it fails")
    data: str | None = Field(None, max_length=2000, description="where the data comes from and what is in it")
    licence: str | None = Field(None, description="of the model, an SPDX expression such as Apache-2.0")
    data_licence: str | None = Field(None, description="of the data, an SPDX expression such as CC-BY-4.0")

    @field_validator("licence", "data_licence")
    @classmethod
    def _is_spdx(cls, expression: str | None) -> str | None:
        from cyclonedx.spdx import is_expression

        if expression is not None and not is_expression(expression):
            raise ValueError(f"{expression!r} is no SPDX licence expression, such as MIT or Apache-2.0 OR CC-BY-4.0")
        return expression
