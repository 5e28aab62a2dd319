"""The command push: a bundle to the Hugging Face hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgestill.flows.cli.options import Commands
from edgestill.flows.terminal import answer, inert, joined, say, table

if TYPE_CHECKING:
    from edgestill.flows.hub import Upload


def push(
    bundle: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run, whose bundle is pushed, or a bundle's folder or zip.")
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the hub, owner/name; made if need be.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Visibility of a new repository. Default: the account's own."),
    ] = None,
    branch: Annotated[str | None, typer.Option(help="Branch to write, made if need be. Default: main.")] = None,
    message: Annotated[str | None, typer.Option(help="Commit message. Default: the bundle's digest.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written; ask no network.")] = False,
) -> None:
    """Check a bundle and push it to the Hugging Face hub.

    `hf auth login` logs in.
    """
    from edgestill.flows.bundle_path import find_bundle
    from edgestill.flows.hub import prepare
    from edgestill.flows.hub import push as written

    found = find_bundle(bundle)
    upload = prepare(found)
    if dry_run:
        answer(_planned(upload, repo))
        return
    address = written(upload, repo, private=private, branch=branch, message=message)
    say(f"wrote {inert(address)}; the bundle's digest is {upload.digest}")


def _planned(upload: "Upload", repo: str) -> str:
    """Files, metadata and digest of an upload."""
    from edgestill.pipeline.figures import size
    from edgestill.pipeline.runs.yaml_text import write_yaml

    rows = [(name, size(len(data))) for name, data in upload.files.items()]
    return joined(
        [
            f"{len(rows)} files for {repo}; nothing is written",
            *table(("file", "size"), rows),
            *write_yaml(upload.metadata).splitlines(),
            f"digest  {upload.digest}",
        ]
    )


COMMANDS: Commands = {"push": push}
