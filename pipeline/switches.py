"""Refusal of true and false where a number is meant, which pydantic reads as 1 and 0."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


def refuse_switches_as_numbers(raw: Any, read: BaseModel) -> None:
    """Compare plain values with the model that was read from them.

    Raises:
        ValidationError: a switch was read as a number; with every place.
    """
    kind = PydanticCustomError("switch", "should be a number")
    wrong = [InitErrorDetails(type=kind, loc=where, input=switch) for where, switch in _found(raw, read)]
    if wrong:
        raise ValidationError.from_exception_data(type(read).__name__, wrong)


def _found(raw: Any, read: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], bool]]:
    if isinstance(raw, bool) and type(read) in (int, float):
        yield where, raw
    elif isinstance(raw, Mapping) and isinstance(read, BaseModel):
        for name, value in raw.items():
            yield from _found(value, getattr(read, str(name), None), (*where, name))
    elif isinstance(raw, list) and isinstance(read, tuple) and len(raw) == len(read):
        for place, (value, own) in enumerate(zip(raw, read, strict=True)):
            yield from _found(value, own, (*where, place))
