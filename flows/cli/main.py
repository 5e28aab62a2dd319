"""The command line: every command by its name, in the order of `edgestill --help`.

A new command is a function and a line in the COMMANDS of its module.
"""

# ruff: noqa: E402
from edgestill.flows.cli.safe_path import leave_out_the_current_folder

leave_out_the_current_folder()  # before the imports: a file there could pose as a module

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgestill.flows.cli import (
    bundle,
    cache,
    compare,
    configure,
    conformance,
    data,
    device,
    doctor,
    hub,
    parts,
    registry,
    run,
    search,
    serve,
    target,
)
from edgestill.flows.cli.failures import guarded
from edgestill.flows.cli.options import Commands, is_long
from edgestill.flows.labelling import command as labelling
from edgestill.flows.store import command as storing
from edgestill.flows.supervise import supervised
from edgestill.flows.terminal import answer, close_streams, open_streams
from edgestill.pipeline.child import environment

COMMANDS: Commands = {
    **run.COMMANDS,
    **labelling.COMMANDS,
    **parts.COMMANDS,
    **compare.COMMANDS,
    **configure.COMMANDS,
    **data.COMMANDS,
    **doctor.COMMANDS,
    **search.COMMANDS,
    **bundle.COMMANDS,
    **hub.COMMANDS,
    **storing.COMMANDS,
    **device.COMMANDS,
    **target.COMMANDS,
    **conformance.COMMANDS,
    **cache.COMMANDS,
    **registry.COMMANDS,
    **serve.COMMANDS,
}


class _InOrder(TyperGroup):
    """Group that lists its commands in the table's order; typer's own would list groups of commands last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)


app = typer.Typer(
    name="edgestill",
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Any command takes --debug, which shows the traceback of an error.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        answer(f"edgestill {metadata.version('edgestill')}")
        raise typer.Exit


@app.callback()
def edgestill(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take a trained classifier and a budget; give back a small student that ships."""


for _name, _command in COMMANDS.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(_name)(_command)


def main() -> None:
    """Run the command of this process's arguments, and exit with its code."""
    os.environ.update(environment())  # processes started by libraries import nothing from the current folder either
    open_streams()
    debug = "--debug" in sys.argv
    given = [argument for argument in sys.argv[1:] if argument != "--debug"]
    outlive = supervised if is_long(COMMANDS.get(next(iter(given), ""))) else _here
    code = outlive(given, _traced if debug else execute)
    close_streams()
    sys.exit(code)


def _traced(arguments: Sequence[str]) -> int:
    """Run one command, and print the traceback of its error.

    The error ends here: one that reached the interpreter would keep the frames of the work, with sessions and threads
    of libraries, alive to its end, and some libraries wait there for ever.
    """
    try:
        return execute(arguments, debug=True)
    except Exception:
        traceback.print_exc()
        return 1


def _here(arguments: Sequence[str], work: Callable[[Sequence[str]], int]) -> int:
    return work(arguments)


def execute(arguments: Sequence[str], debug: bool = False) -> int:
    """Run one command in this process and return its exit code; `debug` raises an error instead of telling it."""
    return guarded(lambda: _call(arguments), debug)


def _call(arguments: Sequence[str]) -> Any:
    _require_folder()
    try:
        return app([_at_home(argument) for argument in arguments], standalone_mode=False)
    except SystemExit as stop:
        if isinstance(stop.__context__, OSError):  # typer takes any broken pipe for its output's
            raise stop.__context__ from None
        raise


def _require_folder() -> None:
    """Refuse a current folder that was removed: paths have no meaning there, and torch's libraries end the process.

    Raises:
        UserError: it was.
    """
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        from edgestill.pipeline.errors import UserError

        raise UserError("the current folder was removed; change to another, and give the command there") from None


def _at_home(argument: str) -> str:
    """Expand `~` to the home folder, also in `--out=~/runs`, where a shell does not."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + os.path.expanduser(value)  # noqa: PTH111 - an argument need not be a path
