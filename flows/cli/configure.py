"""The commands for configurations: init, presets."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgestill.flows.cli.options import Commands, Set
from edgestill.flows.terminal import answer, say

if TYPE_CHECKING:
    from edgestill.flows.config.starting import Wishes

_DEFAULT = Path("edgestill.yaml")


def init(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="File to write. Default: edgestill.yaml.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Your data: folder of images, .npz, .csv, .tsv, .parquet, .jsonl, module:function, or digits.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="KIND:NAME", help="Your teacher, such as timm:resnet50; `edgestill list teachers`."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="File of the teacher's weights. Default: it is trained here.")
    ] = None,
    latency_ms: Annotated[
        str | None, typer.Option(metavar="MS", help="Budget: longest median latency of one call, in ms.")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Budget: most parameters, such as 50k or 1.5M.")
    ] = None,
    max_flops: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Budget: most multiply-accumulates, such as 20M.")
    ] = None,
    size_kb: Annotated[str | None, typer.Option(metavar="KB", help="Budget: largest file, in kB.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write; the same as the argument.")] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Built-in configuration to take the values from.")
    ] = None,
    settings: Set = None,
    full: Annotated[bool, typer.Option("--full", help="Write every key with its description.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a short configuration file for your data and teacher.

    On a terminal it asks for what is not given.
    """
    from edgestill.flows.config.starting import Wishes
    from edgestill.pipeline.errors import ConfigError, command
    from edgestill.pipeline.runs.checkpoint import write_atomic
    from edgestill.pipeline.runs.yaml_text import read_yaml

    if file is not None and out is not None and file != out:
        raise ConfigError([f"--out names {out} and the argument {file}; give one of them"])
    target = file or out or _DEFAULT
    if target.exists() and not force:
        raise ConfigError([f"{target} exists already; name another file, or give --force to overwrite it"])
    size = None if size_kb is None else size_kb if size_kb[-1:].isalpha() else f"{size_kb}kB"
    limits = {"max_latency_ms": latency_ms, "max_params": max_params, "max_flops": max_flops, "max_size_bytes": size}
    budget = {key: read_yaml(limit, f"the budget's {key}") for key, limit in limits.items() if limit is not None}
    wishes = Wishes(data, teacher, weights, budget, preset)
    if data is None and preset is None and sys.stdin is not None and sys.stdin.isatty():
        wishes = _asked(wishes)
    write_atomic(target, _text(wishes, target, settings or [], full).encode())
    say(f"wrote {target}; {command('plan', target)} estimates it, {command('run', target)} runs it")


def presets() -> None:
    """List the built-in configurations."""
    from edgestill.flows.config import preset_names, preset_text

    width = max(map(len, preset_names()))
    firsts = ((name, preset_text(name).splitlines()[0].lstrip("# ")) for name in preset_names())
    answer("\n".join(f"{name:<{width}}  {first}" for name, first in firsts))


def _text(wishes: "Wishes", target: Path, settings: list[str], full: bool) -> str:
    """Return the text of a configuration that loads; every key of it with --full, or where --set changes some."""
    import re
    import tempfile

    from edgestill.flows.config import commented_yaml, load_config
    from edgestill.flows.config.starting import short_config
    from edgestill.pipeline.errors import ConfigError

    text = short_config(wishes, target, otherwise="digits")
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.yaml"
        draft.write_text(text, encoding="utf-8")
        is_complete = wishes.data is not None  # a preset's path is an example
        try:
            config = load_config(draft, None, settings, check_files=is_complete)
        except ConfigError as error:
            place = re.compile(rf"{re.escape(str(draft))}(:\d+)?: ")  # of a file that nobody has seen
            raise ConfigError(place.sub("", problem) for problem in error.problems) from None
    return commented_yaml(config) if full or settings else text


def _asked(wishes: "Wishes") -> "Wishes":
    """Ask for what is open; an empty answer leaves it so."""
    from edgestill.pipeline.runs.yaml_text import read_yaml

    def ask(question: str, default: str = "") -> str:
        return str(typer.prompt(question, default=default, show_default=bool(default), err=True)).strip()

    data = ask("Your data (folder of images by class, .npz, .csv, .tsv, module:function)", "digits")
    teacher = wishes.teacher or ask("Your teacher (such as timm:resnet50; empty: one is trained here)") or None
    weights = wishes.weights or (ask("File of its weights (empty: none)") if teacher else "") or None
    budget = dict(wishes.budget)
    if not budget:
        given = {
            "max_latency_ms": ask("Longest latency of one call in ms (empty: no limit)"),
            "max_params": ask("Most parameters, such as 50k (empty: no limit)"),
        }
        budget = {key: read_yaml(value, key) for key, value in given.items() if value}
    return wishes._replace(data=data, teacher=teacher, weights=weights, budget=budget)


COMMANDS: Commands = {"init": init, "presets": presets}
