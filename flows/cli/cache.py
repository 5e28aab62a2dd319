"""The commands for the cache: cache, cache clear."""

from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands
from edgestill.flows.terminal import answer, joined

cache = typer.Typer(help="List or clear files kept between runs.", invoke_without_command=True)


@cache.callback()
def listed(context: typer.Context) -> None:
    """List or clear files kept between runs."""
    if context.invoked_subcommand is not None:
        return
    from edgestill.flows.cache import KINDS, kinds
    from edgestill.pipeline.cache import cache_folder

    found = kinds()
    width = max((len(kind.name) for kind in found), default=0)
    lines = [
        f"{kind.name:<{width}}  {_mb(kind.size_bytes):>12}  {kind.entries:>6,}  {KINDS[kind.name]}" for kind in found
    ]
    answer(joined([f"{cache_folder()}: {_mb(sum(kind.size_bytes for kind in found))}", *lines]))


@cache.command("clear")
def clear_cache(
    kind: Annotated[str | None, typer.Argument(help="Kind of files, such as images. Default: all of them.")] = None,
) -> None:
    """Delete files kept between runs, which are made anew where they are needed."""
    from edgestill.flows.cache import clear

    answer(f"freed {_mb(clear(kind))}")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


COMMANDS: Commands = {"cache": cache}
