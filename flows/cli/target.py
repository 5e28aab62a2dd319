"""The commands for targets, the devices that students will run on: target add, list, check, clean, remove."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands
from edgestill.flows.terminal import answer, joined, say, table

target = typer.Typer(help="Keep the devices that students will run on.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a target; `edgestill target list` has them.")]


@target.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Short name, such as pi5.")],
    where: Annotated[
        str, typer.Argument(metavar="WHERE", help="ssh://USER@HOST[:PORT], adb:SERIAL, folder:PATH, or here.")
    ],
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Number of threads of ONNX Runtime on the device.")] = 1,
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="fp32,int8",
            help="Formats to measure there; OpenVINO's and LiteRT's must be named. Default: all of ONNX Runtime's.",
        ),
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python there. Default: the one of `check --install`, else python3.")
    ] = None,
    folder: Annotated[
        str | None, typer.Option(help="Folder there to work in. Default: the home folder, or /data/local/tmp.")
    ] = None,
    identity: Annotated[Path | None, typer.Option(metavar="KEY", help="Private key. Default: ssh's own.")] = None,
    known_hosts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Known host keys. Default: ~/.ssh/known_hosts.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the target of this name.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask the device for nothing now.")] = False,
) -> None:
    """Keep a device under a name, and look whether it can measure."""
    from pydantic import ValidationError

    from edgestill.export.targets.book import book_path, read_book, write_book
    from edgestill.export.targets.config import TargetConfig
    from edgestill.flows.targets.check import added
    from edgestill.pipeline.errors import ConfigError
    from edgestill.pipeline.frozen import first_problem

    known = read_book()
    if name in known and not replace:
        raise ConfigError([f"there is a target {name!r} already, at {known[name].where}; give --replace"])
    given = {"threads": threads, "formats": formats.split(",") if formats else (), "python": python or "",
             "folder": folder or "", "identity": identity and identity.absolute(),
             "known_hosts": known_hosts and known_hosts.absolute()}  # fmt: skip
    try:
        new = TargetConfig(name=name, where=where, **given)
    except ValidationError as error:
        raise ConfigError([first_problem(error).replace("Value error, ", "")]) from None
    lacking: list[str] = []
    if not offline:
        new, lacking = added(new, lambda line: say(line, err=True))
    write_book(known | {name: new})
    answer(joined([f"{name}: {new.where}, kept in {book_path()}", *(f"missing: {line}" for line in lacking)]))


@target.command("list")
def listing() -> None:
    """List the targets; asks none of them."""
    from edgestill.export.targets.book import read_book

    rows = [
        (one.name, one.where, one.architecture or "", str(one.threads), ",".join(one.formats) or "all")
        for one in read_book().values()
    ]
    answer(joined(table(["name", "where", "architecture", "threads", "formats"], rows)))


@target.command("check")
def check(
    name: Name,
    install: Annotated[
        bool,
        typer.Option(
            "--install",
            help="Bring numpy, onnxruntime and what its formats need into edgestill's folder there, by its pip.",
        ),
    ] = False,
) -> int:
    """Ask a target for its state.

    Exit code 1 means that something is missing or in the way; each has a line, with the command that mends it.
    """
    from edgestill.export.targets.book import target_of
    from edgestill.flows.targets.check import check as ask

    facts, problems = ask(target_of(name), install, lambda line: say(line, err=True))
    ending = f"{name}: {'can measure' if not problems else 'look at the lines above'}"
    answer(joined([*facts, *(f"missing: {line}" for line in problems), ending]))
    return 1 if problems else 0


@target.command("clean")
def clean(name: Name) -> None:
    """Remove edgestill's folder on a target, with all that was sent or installed there."""
    from edgestill.export.targets.book import target_of
    from edgestill.export.targets.measure import Device

    with Device(target_of(name), lambda line: say(line, err=True), patient=False) as device:
        was_there = device.cleaned()
    answer(f"{name}: {'removed' if was_there else 'nothing of edgestill is there'}")


@target.command("remove")
def remove(name: Name) -> None:
    """Forget a target; what is on the device stays (`target clean` removes it)."""
    from edgestill.export.targets.book import read_book, target_of, write_book

    target_of(name)
    write_book({one: kept for one, kept in read_book().items() if one != name})
    answer(f"{name}: forgotten")


COMMANDS: Commands = {"target": target}
