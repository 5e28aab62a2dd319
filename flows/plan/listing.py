"""The tables of names that a configuration may use, each name with one line on it: `edgestill list`."""

import sys
from collections.abc import Mapping
from typing import Any

from edgestill.distill.acquisition import ACQUISITIONS
from edgestill.distill.drivers import DRIVERS
from edgestill.distill.methods import METHODS
from edgestill.export.formats import FORMATS
from edgestill.pipeline.data.datasets import DATASETS
from edgestill.pipeline.engines import ENGINES
from edgestill.pipeline.errors import ConfigError, nearest
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.plugins import Table
from edgestill.pipeline.teachers import TEACHERS
from edgestill.pipeline.trackers import TRACKERS
from edgestill.search.scorers import SCORERS
from edgestill.search.spaces import SPACES
from edgestill.search.strategies import STRATEGIES

_TABLES: dict[str, tuple[Mapping[str, Any], str]] = {  # word -> table, and the key of a configuration for its names
    "datasets": (DATASETS, "data"),
    "teachers": (TEACHERS, "teacher"),
    "students": (SPACES, "search.space"),
    "scorers": (SCORERS, "search.scorer"),
    "strategies": (STRATEGIES, "search.strategy"),
    "methods": (METHODS, "distill.methods"),
    "drivers": (DRIVERS, "distill.driver"),
    "acquisitions": (ACQUISITIONS, "distill.driver.acquisition"),
    "formats": (FORMATS, "export.formats"),
    "trackers": (TRACKERS, "trackers"),
    "engines": (ENGINES, "device.engine"),
}
_ALSO = {"data": "datasets", "spaces": "students"}


def listed(what: str | None, tag: str | None = None) -> str:
    """List a table, a line for each name; without a word list the tables.

    Args:
        tag: of methods, lists those with it, such as `ranking` or `white-box`.

    Raises:
        ConfigError: there is no such table, or no method has the tag.
    """
    if tag is not None:
        return _columns({name: _described(METHODS[name]) for name in _tagged(what, tag)})
    if what is None:
        return _columns({word: f"{key}: {', '.join(table)}" for word, (table, key) in _TABLES.items()})
    word = _ALSO.get(what, what)
    if word not in _TABLES:
        raise ConfigError([f"nothing is listed as {what!r}; {nearest(what, _TABLES)}"])
    table, _ = _TABLES[word]
    return _columns({name: _described(line) + _origin(table, name) for name, line in table.items()})


def _tagged(what: str | None, tag: str) -> list[str]:
    """Names of the methods with a tag."""
    if what != "methods":
        raise ConfigError([f"{what or 'the list of tables'} has no tags; only methods have"])
    tags = {name: method.facts.tags for name, method in METHODS.items() if method.facts is not None}
    found = [name for name, own in tags.items() if tag in own]
    if not found:
        known = sorted({one for own in tags.values() for one in own})
        raise ConfigError([f"no method has the tag {tag!r}; tags: {', '.join(known)}"])
    return found


def _columns(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {words}" for name, words in rows.items())


def _origin(table: Mapping[str, Any], name: str) -> str:
    package = table.package(name) if isinstance(table, Table) else None
    return "" if package is None else f" (of the package {package})"


def _described(line: Any) -> str:
    """First line of the docstring of the configuration, else of the class, else of its module."""
    thing = line[0] if isinstance(line, tuple) else line
    kind = thing if isinstance(thing, type) else type(thing)
    texts = (_own_docstring(getattr(kind, "Config", None)), _own_docstring(kind), sys.modules[kind.__module__].__doc__)
    words = next((text for text in texts if text), "").strip().partition("\n")[0]
    return words + _more(kind, thing)


def _more(kind: type[Any], thing: Any) -> str:
    """Add precision and runtime of a format, or the architectures of a family of teachers."""
    if hasattr(thing, "precision") and hasattr(thing, "runtime"):
        return f" [{thing.precision}, {thing.runtime}]"
    known = tuple(getattr(kind, "architectures", ()))
    return f" Architectures: {', '.join(known)}." if known else ""


def _own_docstring(kind: Any) -> str | None:
    """Docstring of a class itself; one of keys that several classes share tells nothing of this one."""
    text = vars(kind).get("__doc__") if isinstance(kind, type) and kind is not Frozen else None
    return None if text is None or text.startswith("Key") else text
