"""Run the `edgestill` command."""

# ruff: noqa: E402
from edgestill.flows.cli.safe_path import leave_out_the_current_folder

leave_out_the_current_folder()  # before the imports: a file there could pose as a module

import os
import sys
from collections.abc import Sequence
from typing import Any

from edgestill.flows.cli.app import app
from edgestill.flows.cli.failures import guarded
from edgestill.flows.supervise import supervised
from edgestill.flows.terminal import close_streams, open_streams
from edgestill.pipeline.child import environment


def main() -> None:
    """Run the command of this process's arguments, and exit with its code."""
    os.environ.update(environment())  # processes started by libraries import nothing from the current folder either
    open_streams()
    debug = "--debug" in sys.argv
    given = [argument for argument in sys.argv[1:] if argument != "--debug"]
    code = supervised(given, lambda arguments: execute(arguments, debug))
    close_streams()
    sys.exit(code)


def execute(arguments: Sequence[str], debug: bool = False) -> int:
    """Run one command in this process and return its exit code; `debug` raises an error instead of telling it."""
    return guarded(lambda: _call(arguments), debug)


def _call(arguments: Sequence[str]) -> Any:
    try:
        return app([_at_home(argument) for argument in arguments], standalone_mode=False)
    except SystemExit as stop:
        if isinstance(stop.__context__, OSError):  # typer takes any broken pipe for its output's
            raise stop.__context__ from None
        raise


def _at_home(argument: str) -> str:
    """Expand `~` to the home folder, also in `--out=~/runs`, where a shell does not."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + os.path.expanduser(value)  # noqa: PTH111 - an argument need not be a path
