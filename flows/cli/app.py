"""The application: every command by its name, in the order of `edgestill --help`.

A new command is a function and a line in the COMMANDS of its module.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgestill.flows.cli import bundle, configure, conformance, device, run, search, serve
from edgestill.flows.cli.options import Commands
from edgestill.flows.terminal import answer

COMMANDS: Commands = {
    **run.COMMANDS,
    **configure.COMMANDS,
    **search.COMMANDS,
    **bundle.COMMANDS,
    **device.COMMANDS,
    **conformance.COMMANDS,
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
