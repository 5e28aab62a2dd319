"""The commands that tell what is there: doctor, list, explain."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Out
from edgestill.flows.terminal import answer, joined


def doctor(
    out: Out = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, for a program.")] = False,
) -> int:
    """Check this machine and this installation.

    Print a line for each thing, with the fix beside each fault; exit code 1 means that something required is broken.
    """
    import json

    from edgestill.flows.plan.doctor import examine

    found = []
    for check in examine(out):
        found.append(check)
        if not as_json:
            answer(joined([check.line]))
    if as_json:
        keys = ("state", "name", "found", "fix")
        answer(json.dumps([{key: getattr(check, key) for key in keys} for check in found], indent=1))
    return int(any(check.is_fault for check in found))


def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[TABLE]",
            help="Table to list, such as teachers, students, methods or formats. Default: all tables.",
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="Methods with this tag alone, such as ranking, feature or white-box."),
    ] = None,
) -> None:
    """List teachers, students, methods, formats and more by name."""
    from edgestill.flows.plan.listing import listed

    answer(listed(what, tag))


def explain(
    method: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of `edgestill list methods`, drivers or acquisitions.")
    ],
) -> None:
    """Explain a method, a driver or an acquisition function.

    Print what it does, its loss, needs, cost, settings and source, and where it won and lost in our benchmarks.
    """
    from edgestill.flows.plan.explain import explained

    answer(explained(method))


COMMANDS: Commands = {"doctor": doctor, "list": list_, "explain": explain}
