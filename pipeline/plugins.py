"""Tables of plug-ins: edgestill's own lines, and those that other installed packages offer by entry point.

A package offers a method in the group `edgestill.methods`, under the method's own name; docs/howto/plugins.md lists the
groups. A table reads its group when it is first used. What cannot be used is left out and named by `cautions`. With
EDGESTILL_PLUGINS=none in the environment nothing is read.
"""

import contextlib
import functools
import importlib
import inspect
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, MutableMapping
from importlib import metadata
from typing import Any, Literal, TypeVar, get_args, get_origin

from edgestill.pipeline.errors import first_line, told

TABLES = ("methods", "spaces", "scorers", "strategies", "datasets", "teachers", "formats", "trackers")
SWITCH = "EDGESTILL_PLUGINS"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")

Line = TypeVar("Line")
_left_out: dict[tuple[str, str], str] = {}  # (table, name and source of the offer) -> caution


class PlugInError(ValueError):
    """Reason why an object cannot be a line of a table, as the end of a sentence."""


class Table(MutableMapping[str, Line]):
    """Lines by name, in order: edgestill's own, then those of installed packages by name."""

    def __init__(self, kind: str, read: Callable[[str, Any], Line], own: dict[str, Line]) -> None:
        """Make a table.

        Args:
            kind: of TABLES.
            read: from the name and the object of an entry point to a line; raises PlugInError.
        """
        assert kind in TABLES
        self.kind, self._read, self._lines, self._is_whole = kind, read, own, False
        self._own = frozenset(own)

    def package(self, name: str) -> str | None:
        """Name of the package that offers a line; None for edgestill's own, and for one admitted by hand."""
        if name in self._own:
            return None
        return next((p.dist.name for p in _offered(self.kind) if p.name == name and p.dist is not None), None)

    def admit(self, name: str, found: Any) -> None:
        """Add a line as an entry point of this name and object would.

        Raises:
            PlugInError: the name is bad or taken, or the object is no line of this table.
        """
        line = self._read(_good(name), found)
        if name in self._lines:
            if self._lines[name] == line:
                return
            raise PlugInError(f"the name {name!r} is taken")
        self._lines[name] = line

    def __getitem__(self, name: str) -> Line:
        return self._whole()[name]

    def __setitem__(self, name: str, line: Line) -> None:
        self._whole()[name] = line

    def __delitem__(self, name: str) -> None:
        del self._whole()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def _whole(self) -> dict[str, Line]:
        if not self._is_whole:
            self._is_whole = True  # first: a plug-in may read the table while it is imported
            for point in _offered(self.kind):
                try:
                    self.admit(point.name, load(point.value))
                except PlugInError as error:
                    _leave_out(point, self.kind, str(error))
        return self._lines


def cautions() -> tuple[str, ...]:
    """Name each plug-in that was left out of a table used so far, a sentence each."""
    return told(_left_out.values(), most=20)


def plugin_distributions() -> list[str]:
    """Names of the installed distributions that offer plug-ins, used or not."""
    found = (point.dist for kind in TABLES for point in _offered(kind))
    return sorted({dist.name for dist in found if dist is not None})


def load(place: str) -> Any:
    """Import an object by its place, `package.module:Name`.

    Raises:
        PlugInError: there is no such object, or its module fails.
    """
    module, colon, name = place.partition(":")
    if not (colon and module and name):
        raise PlugInError("it is no place such as package.module:Name")
    try:
        return functools.reduce(getattr, name.strip().split("."), importlib.import_module(module.strip()))
    except (Exception, SystemExit) as error:  # it is code from elsewhere
        raise PlugInError(f"it cannot be imported ({type(error).__name__}: {first_line(error)})") from error


def require_class(found: Any, base: type[Any]) -> None:
    """Raise PlugInError unless the object is a class made from `base` with all that is abstract in it."""
    if not (isinstance(found, type) and issubclass(found, base)):
        raise PlugInError(f"a class made from {base.__module__}.{base.__name__} goes there, not {_described(found)}")
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise PlugInError(f"the class {found.__name__} lacks {lacking}")


def require_attributes(found: Any, name: str, *attributes: str) -> None:
    """Raise PlugInError unless a class, or an object made from it, has the attributes, and `name` as its own."""
    lacking = [attribute for attribute in ("name", *attributes) if not hasattr(found, attribute)]
    if lacking:
        raise PlugInError(f"{_described(found)} lacks {', '.join(lacking)}")
    if found.name != name:
        raise PlugInError(f"{_described(found)} has the name {str(found.name)[:40]!r}")


def require_config(config: Any, name: str, base: type[Any], *, is_complete: bool = True) -> None:
    """Raise PlugInError unless a configuration is chosen by this name, and valid with its defaults if `is_complete`."""
    require_class(config, base)
    annotation = config.model_fields["name"].annotation if "name" in config.model_fields else None
    if get_origin(annotation) is not Literal or get_args(annotation) != (name,):
        raise PlugInError(f"its configuration {config.__name__} does not declare `name: Literal[{name!r}] = {name!r}`")
    try:
        _ = config() if is_complete else None
    except Exception as error:
        raise PlugInError(f"its configuration {config.__name__} has no valid defaults ({first_line(error)})") from error


def require_pair(found: Any, second: str) -> tuple[Any, Any]:
    """Return (configuration, `second`) from a pair, or from a class or function with a `Config`.

    Raises:
        PlugInError: it is neither.
    """
    if isinstance(found, tuple) and len(found) == 2:
        return found[0], found[1]
    if callable(found) and hasattr(found, "Config"):
        return found.Config, found
    raise PlugInError(f"a pair (configuration, {second}) goes there, not {_described(found)}")


def _good(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise PlugInError("a name has up to 40 small letters, digits and underscores, and begins with a letter")
    return name


def _described(found: Any) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else f"an object of type {type(found).__name__}"


def _leave_out(point: metadata.EntryPoint, kind: str, why: str) -> None:
    source = "" if point.dist is None else f" of {point.dist.name}"
    what = f"plug-in {point.name!r} ({point.value}){source} for edgestill's {kind}"
    _left_out[kind, what] = f"the {what} is left out: {why}"


@functools.cache
def _all_offered() -> tuple[metadata.EntryPoint, ...]:
    """Find the entry points of all groups on the import path, its relative entries left out, by distribution."""
    found: dict[str, list[metadata.EntryPoint]] = {}
    groups = {f"edgestill.{kind}" for kind in TABLES}
    for distribution in metadata.distributions(path=[entry for entry in sys.path if pathlib.Path(entry).is_absolute()]):
        with contextlib.suppress(OSError, ValueError, KeyError):  # a package's own metadata are broken
            points = [point for point in distribution.entry_points if point.group in groups]
            if points:  # the first of a name on the path is the one that is imported
                found.setdefault(distribution.name, points)
    return tuple(point for name in sorted(found) for point in found[name])


def _offered(kind: str) -> list[metadata.EntryPoint]:
    if os.environ.get(SWITCH) == "none":
        return []
    return sorted((p for p in _all_offered() if p.group == f"edgestill.{kind}"), key=lambda point: point.name)
