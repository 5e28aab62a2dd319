"""The commands store push and store pull: copies of runs in a store of objects, S3 for one."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Out, Run
from edgestill.flows.terminal import say

Place = Annotated[str, typer.Argument(metavar="URL", help="Folder of runs in the store: s3://BUCKET/runs.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the run's folder there.")]

store = typer.Typer(
    name="store",
    no_args_is_help=True,
    help="Copy runs to a store of objects, S3 for one, and back.",
    rich_markup_mode=None,
)


@store.command()
def push(run: Run, url: Place, out: Out = Path("runs")) -> None:
    """Copy a run to the store.

    No process may work on the run. What is there already, byte for byte, is not sent again. The copy counts once its
    list of files is there, which comes last.
    """
    from edgestill.flows.store.mirror import push as pushed
    from edgestill.pipeline.runs.find import find_run

    sent, total = pushed(find_run(run, out), url)
    say(f"{sent} of {total} files sent")


@store.command()
def pull(url: Place, name: Name, out: Out = Path("runs")) -> None:
    """Copy a run from the store.

    It appears below --out when all of its files are there and have the digests of its list, or not at all.
    """
    from edgestill.flows.store.mirror import pull as pulled

    say(f"run  {pulled(url, name, out)}")


COMMANDS: Commands = {"store": store}
