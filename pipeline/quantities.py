"""Numbers as a person writes them: `50k` parameters, `1.5M` FLOPs, `200kB` of a file, `5ms`."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator

_NUMBER = r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)\s*"
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30}


def _count(value: Any) -> Any:
    return _whole(value, _FACTORS | {"b": 10**9}, "50000, 50k or 1.5M")


def _bytes(value: Any) -> Any:
    prefixes = _FACTORS | _BINARY
    return _whole(value, prefixes | {f"{name}b": factor for name, factor in prefixes.items()}, "200000, 200kB or 1.5MB")


def _milliseconds(value: Any) -> Any:
    found = re.fullmatch(_NUMBER + "ms", value) if isinstance(value, str) else None
    return float(found[1]) if found else value


def _whole(value: Any, factors: dict[str, int], examples: str) -> Any:
    """Return a text's number; a value that is no text is pydantic's to judge."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(_NUMBER + "([a-zA-Z]*)", value)
    if found is None or found[2].lower() not in factors:
        raise ValueError(f"{value[:40]!r} is no whole number here; write it as {examples}")
    number = Decimal(found[1]) * factors[found[2].lower()]
    if number != int(number):
        raise ValueError(f"{value[:40]!r} is {number:f}, which is no whole number; write {round(number)}")
    return int(number)


Count = Annotated[int, BeforeValidator(_count)]
"""A whole number; `k`, `M`, `G` (or `B`) multiply it by a thousand, a million, a billion."""
Bytes = Annotated[int, BeforeValidator(_bytes)]
"""A size in bytes; `kB`, `MB`, `GB` are powers of 1000, `KiB`, `MiB`, `GiB` of 1024."""
Milliseconds = Annotated[float, BeforeValidator(_milliseconds)]
"""A time in milliseconds, with or without `ms`."""
