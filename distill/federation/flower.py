"""Flower, imported when it is called, and how to get it."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from edgestill.pipeline.errors import MissingDependencyError

VERSION = "1.42.0"  # its interface changes between minor releases


def flower(module: str = "app") -> ModuleType:
    """Import a module of flwr.

    Raises:
        MissingDependencyError: it is not installed; says how to install it.
    """
    try:
        return import_module(f"flwr.{module}")
    except ImportError as error:
        raise MissingDependencyError(f"{_advice()} ({error})") from None


def lacking() -> str | None:
    """Say how to install Flower if it is not there, without importing it."""
    return _advice() if find_spec("flwr") is None else None


def _advice() -> str:
    return (
        f"federated distillation needs Flower: `pip install 'edgestill[federated]'`, then `pip install --no-deps "
        f"flwr=={VERSION}`, whose own requirements do not go with this set of versions (docs/howto/federated.md)"
    )
