"""The page of every command, from the parser of the command line."""

from collections.abc import Iterator
from typing import Any

import typer.main

from edgestill.flows.cli.main import app

HEAD = """# Commands

`edgestill COMMAND --help` prints the same. `RUN` is a run's folder, its name below `runs`, or `latest`. Any command
takes `--debug`, which shows the traceback of an error.
"""


def page() -> str:
    """Return the page: a heading for each command, in the order of `edgestill --help`."""
    group = typer.main.get_command(app)
    context = group.context_class(group, info_name="edgestill")
    return "\n".join((HEAD, *_sections(group, context)))


def _sections(group: Any, above: Any) -> Iterator[str]:
    for name in group.list_commands(above):
        command = group.get_command(above, name)
        context = command.context_class(command, info_name=name, parent=above)
        is_group = hasattr(command, "list_commands")
        if not is_group or command.invoke_without_command:
            yield _section(command, context)
        if is_group:
            yield from _sections(command, context)


def _section(command: Any, context: Any) -> str:
    path = context.command_path
    usage = " ".join((path, *command.collect_usage_pieces(context)))
    records = [one.get_help_record(context) for one in command.params]
    rows = [f"| `{name}` | {_cell(words)} |" for name, words in filter(None, records)]
    table = ("| argument | |", "|---|---|", *rows) if rows else ()
    return "\n".join((f"## `{path}`", "", command.help, "", "```text", usage, "```", "", *table, ""))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
