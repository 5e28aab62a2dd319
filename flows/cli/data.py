"""The command for data: a look at what a configuration would train on."""

import base64
from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Config, Preset, Set
from edgestill.flows.terminal import answer, say


def data(
    config: Config = None, preset: Preset = None, settings: Set = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write some pictures of each class to.")
    ] = None,
) -> None:  # fmt: skip
    """Look at the data before anything is paid for.

    Count examples by class and split; find copies across splits, contradicting labels, empty-looking images, imbalance
    and texts that are cut.
    """
    from edgestill.flows.config import load_config
    from edgestill.flows.show import look_lines
    from edgestill.pipeline.data.loading import load_splits
    from edgestill.pipeline.errors import ConfigError
    from edgestill.pipeline.runs.checkpoint import write_atomic

    if config is None and preset is None and not settings:
        raise ConfigError(["nothing to look at: give a CONFIG.yaml, --preset, or --set data.path=…"])
    loaded = load_config(config, preset, settings or [])
    splits = load_splits(loaded.read_data, loaded.seed, looking=True)
    assert splits.look is not None
    answer(look_lines(splits.task, splits.look))
    if sheet is not None:
        sheet.mkdir(parents=True, exist_ok=True)
        for number, strip in enumerate(splits.look.strips.values()):
            write_atomic(sheet / f"class_{number}.png", base64.b64decode(strip))
        say(f"wrote {len(splits.look.strips)} pictures to {sheet}", err=True)


COMMANDS: Commands = {"data": data}
