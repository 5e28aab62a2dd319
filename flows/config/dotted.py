"""Nested settings as one row each."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def dotted(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, value as text) of nested settings; lists stay whole, as JSON."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
