"""The command for plug-ins: conformance."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgestill.flows.cli.options import Commands
from edgestill.flows.terminal import joined, say

if TYPE_CHECKING:
    from edgestill.pipeline.conformance.suite import Check, Outcome
    from edgestill.pipeline.plugins import Table


def conformance(
    plug_in: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE.MODULE:NAME",
            help="Class or pair in an installed package; it need not be an entry point yet.",
        ),
    ],
) -> int:
    """Check that a plug-in keeps its table's contract.

    Exit code 1 says that it does not. docs/howto/plugins.md tells how to write one.
    """
    from edgestill.pipeline.plugins import PlugInError

    found = _loaded(plug_in)
    table = _table_of(found, plug_in)
    tell_of_plugins()
    try:
        name = _name_in(table, found)
    except PlugInError as error:
        say(joined([f"failed it is a line of the table of {table.kind}: {error}"]))
        return 1
    return _told(table.kind, name)


def tell_of_plugins() -> None:
    """Name on standard error the plug-ins that were left out of the tables used so far."""
    from edgestill.pipeline.plugins import cautions

    for caution in cautions():
        say(f"caution: {caution}", err=True)


def _loaded(place: str) -> Any:
    from edgestill.pipeline.errors import ConfigError
    from edgestill.pipeline.plugins import PlugInError, load

    try:
        return load(place)
    except PlugInError as error:
        raise ConfigError([f"{place}: {error}; give PACKAGE.MODULE:NAME of an installed package"]) from error


def _table_of(found: Any, place: str) -> "Table[Any]":
    """Find the table that an object of this type belongs to.

    Raises:
        ConfigError: there is none.
    """
    from edgestill.distill.methods import METHODS, Method
    from edgestill.export.formats import FORMATS, Format
    from edgestill.pipeline.data.datasets import DATASETS
    from edgestill.pipeline.data.datasets.base import DatasetConfig
    from edgestill.pipeline.errors import ConfigError
    from edgestill.pipeline.frozen import Frozen
    from edgestill.pipeline.teachers import TEACHERS, Teacher
    from edgestill.search.scorers import SCORERS, Scorer
    from edgestill.search.space import SearchSpace
    from edgestill.search.spaces import SPACES
    from edgestill.search.strategies import STRATEGIES

    config, thing = _parts(found)
    classes: tuple[tuple[type[Any], Table[Any]], ...] = (
        (Method, METHODS), (SearchSpace, SPACES), (Scorer, SCORERS), (Format, FORMATS), (Teacher, TEACHERS),
    )  # fmt: skip
    for base, table in classes:
        if isinstance(thing, base) or (isinstance(thing, type) and issubclass(thing, base)):
            return table
    if callable(thing) and isinstance(config, type) and issubclass(config, Frozen):
        return DATASETS if issubclass(config, DatasetConfig) else STRATEGIES
    raise ConfigError(
        [
            f"{place} is for no table: a class made from Method, SearchSpace, Scorer, Format or Teacher is, and a pair "
            "of a configuration and a function, of a strategy or a data set"
        ]
    )


def _name_in(table: "Table[Any]", found: Any) -> str:
    """Name of the object in its table; it is added where no entry point offers it.

    Raises:
        PlugInError: it cannot be a line of the table.
    """
    for name, line in table.items():
        if found in (line, type(line)) or (isinstance(line, tuple) and found in line):
            return name
    config, thing = _parts(found)
    fields = getattr(config, "model_fields", {})
    name = str(getattr(thing, "name", fields["name"].default if "name" in fields else ""))
    table.admit(name, found)
    return name


def _told(kind: str, name: str) -> int:
    from edgestill.pipeline.conformance.suite import outcomes
    from edgestill.pipeline.randomness import drawn_from

    subject, checks = _suite(kind, name)
    failures = 0
    with drawn_from(0):
        for outcome in outcomes(checks, subject):
            say(joined([_line(outcome)]))
            failures += outcome.failure is not None
    say(f"{name}, of the {kind}: {failures} of {len(checks)} checks failed")
    return 1 if failures else 0


def _line(outcome: "Outcome") -> str:
    if outcome.failure is not None:
        return f"failed {outcome.claim}: {outcome.failure}"
    return f"ok {outcome.claim}" if outcome.skipped is None else f"left out {outcome.claim}: {outcome.skipped}"


def _suite(kind: str, name: str) -> "tuple[Any, tuple[Check, ...]]":
    """The object that a table's checks take, and the checks; they are imported once the plug-in is in its table."""
    from edgestill.distill.conformance.contract import CONTRACT
    from edgestill.distill.conformance.facts import FACTS
    from edgestill.distill.methods import METHODS
    from edgestill.export import conformance as formats
    from edgestill.export.formats import FORMATS
    from edgestill.pipeline.conformance import datasets, teachers
    from edgestill.search.conformance import scorers, spaces, strategies
    from edgestill.search.scorers import SCORERS
    from edgestill.search.spaces import SPACES, make_space

    match kind:
        case "methods":
            kept = the_exported_graph_is_the_plain_students_unless_it_fills_the_head
            return METHODS[name], (*CONTRACT, *FACTS, kept)
        case "spaces":
            return make_space(SPACES[name][0]()), spaces.CHECKS
        case "scorers":
            return SCORERS[name], scorers.CHECKS
        case "formats":
            return FORMATS[name], formats.CHECKS
    suites = {"strategies": strategies.CHECKS, "datasets": datasets.CHECKS, "teachers": teachers.CHECKS}
    return name, suites[kind]


def the_exported_graph_is_the_plain_students_unless_it_fills_the_head(method: Any) -> None:
    from edgestill.distill.conformance.contract import plain_and_shipped
    from edgestill.export.conformance import require_same_graph

    if "head" not in method.fills:
        plain, shipped, task = plain_and_shipped(method)
        require_same_graph(shipped, plain, task)


def _parts(found: Any) -> tuple[Any, Any]:
    """Return (configuration, class or function) of an object as a table takes it."""
    if isinstance(found, tuple) and len(found) == 2:
        return found[0], found[1]
    return getattr(found, "Config", None), found


COMMANDS: Commands = {"conformance": conformance}
