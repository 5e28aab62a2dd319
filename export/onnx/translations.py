"""Keep the exporter's table of translations: torch makes it anew for each export, a third of a small network's."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def kept_translations() -> Iterator[None]:
    """Let exports within take the table that this process made before, one for each opset.

    The table is behind torch's API. Where a release has it elsewhere, exports make their own.
    """
    registry, make = _makers()
    if make is None:
        yield
        return
    own = vars(registry)["from_torchlib"]
    registry.from_torchlib = staticmethod(make)
    try:
        yield
    finally:
        registry.from_torchlib = own


@functools.cache
def _makers() -> tuple[Any, Callable[..., Any] | None]:
    """Return torch's class of tables, and its maker of a full one, which remembers those that it made."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        return None, None
    own = vars(ONNXRegistry).get("from_torchlib")
    return ONNXRegistry, functools.lru_cache(ONNXRegistry.from_torchlib) if isinstance(own, classmethod) else None
