"""Parses JSON from a possibly hostile file: one meaning or none, and a bounded size and depth."""

import json
import math
from collections.abc import Iterator
from typing import Any

from edgestill.pipeline.errors import BundleError
from edgestill.pipeline.foreign import MAX_VALUES, has_many_values

MAX_DEPTH = 32
MAX_BYTES = 64 * 2**20


def checked(data: bytes, name: str) -> bytes:
    """Check JSON as `parse_json` does, with any number of values, and return no bytes; for a child."""
    parse_json(data, name, most=len(data))
    return b""


def parse_json(data: bytes, name: str, most: int = MAX_VALUES) -> Any:
    """Return the value in `data`.

    Args:
        most: allowed number of values in it.

    Raises:
        BundleError: not JSON in UTF-8, too large or too deep, a key twice, a number that is not finite, half of a
            surrogate pair.
    """
    if len(data) > MAX_BYTES:
        raise BundleError([f"{name} has {len(data):,} bytes; a JSON file here has {MAX_BYTES:,} at most"])
    if has_many_values(data, most):
        raise BundleError([f"{name} holds more than {most:,} values; it is not one that edgestill writes"])
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
        depth = _depth(value)
        if depth > MAX_DEPTH:
            raise ValueError(f"its lists and objects nest {depth} deep; {MAX_DEPTH} is allowed")
    except RecursionError:
        raise BundleError([f"{name} is not JSON that is read here: it nests deeper than {MAX_DEPTH}"]) from None
    except ValueError as error:  # includes JSON's own and UTF-8's errors
        raise BundleError([f"{name} is not JSON that is read here: {str(error).splitlines()[0][:200]}"]) from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        found[key] = value
    return found


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON's")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _depth(value: Any) -> int:
    """Return the nesting depth of lists and objects, without recursion; refuse strings other than Unicode text."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        for text in _strings(item):
            text.encode("utf-8")
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            waiting += [(child, depth + 1) for child in (item.values() if isinstance(item, dict) else item)]
    return deepest


def _strings(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    elif isinstance(item, dict):
        yield from item
