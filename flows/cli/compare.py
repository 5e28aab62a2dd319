"""The command compare: several runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Out
from edgestill.flows.terminal import answer, say


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Two to six runs: folders, or names below --out.")
    ],
    page: Annotated[
        Path, typer.Option("-o", "--page", metavar="FILE.html", help="Page to write.")
    ] = Path("compare.html"),
    out: Out = Path("runs"),
) -> None:  # fmt: skip
    """Compare runs side by side, on a page and in a table.

    Write a page, and print a short table. Unfinished runs show what they have.
    """
    from edgestill.flows.bundle_path import require_outside_bundles
    from edgestill.flows.compare.page import comparison_lines, render_comparison
    from edgestill.flows.compare.runs import read_runs
    from edgestill.pipeline.errors import ConfigError
    from edgestill.pipeline.runs.checkpoint import write_atomic
    from edgestill.pipeline.runs.find import find_run

    if page.is_dir():
        raise ConfigError([f"-o: {page} is a folder; name the file to write"])
    require_outside_bundles(page, "-o")
    found, cautions = read_runs([find_run(run, out) for run in runs]), list[str]()
    write_atomic(page, render_comparison(found, cautions).encode())
    answer(comparison_lines(found))
    for caution in cautions:
        say(f"caution: {caution}", err=True)
    say(f"page  {page}")


COMMANDS: Commands = {"compare": compare}
