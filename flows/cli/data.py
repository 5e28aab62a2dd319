"""The command for data: a look at what a configuration would train on."""

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgestill.flows.cli.options import Commands, Config, Preset, Set
from edgestill.flows.terminal import answer, joined, say

if TYPE_CHECKING:
    from edgestill.pipeline.data.splits import ImageSplit


def data(
    config: Config = None, preset: Preset = None, settings: Set = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write some pictures of each class to.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table to write each example's id, split and class to.")
    ] = None,
) -> None:  # fmt: skip
    """Look at the data before anything is paid for.

    Count examples by class and split; find copies across splits, contradicting labels, empty-looking images, imbalance
    and texts that are cut.
    """
    from edgestill.flows.config import load_config
    from edgestill.flows.show import look_lines
    from edgestill.pipeline.data.loading import load_splits, load_test
    from edgestill.pipeline.errors import ConfigError
    from edgestill.pipeline.runs.checkpoint import write_atomic

    if config is None and preset is None and not settings:
        raise ConfigError(["nothing to look at: give a CONFIG.yaml, --preset, or --set data.path=…"])
    loaded = load_config(config, preset, settings or [])
    splits = load_splits(loaded.read_data, loaded.seed, looking=True)
    assert splits.look is not None
    if splits.cautions:
        answer(joined(f"caution: {sentence}" for sentence in splits.cautions))
    answer(look_lines(splits.task, splits.look))
    if sheet is not None:
        sheet.mkdir(parents=True, exist_ok=True)
        for number, strip in enumerate(splits.look.strips.values()):
            write_atomic(sheet / f"class_{number}.png", base64.b64decode(strip))
        say(f"wrote {len(splits.look.strips)} pictures to {sheet}", err=True)
    if ids is not None:
        write_atomic(ids, _ids([*splits.parts, load_test(loaded.read_data, loaded.seed)], splits.task.labels))
        say(f"wrote {ids}", err=True)


def _ids(splits: "Iterable[ImageSplit]", labels: Sequence[str]) -> bytes:
    """Table of examples, as the answers of a teacher in a file (`teacher: outputs:FILE`) name them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("id", "split", "class"))
    for split in splits:
        assert split.ids is not None
        is_hidden = split.role == "test"  # whose classes are opened once, by the report
        classes = ("" if is_hidden or target < 0 else labels[target] for target in split.targets.tolist())
        writer.writerows(zip(split.ids, [split.role] * len(split), classes, strict=True))
    return out.getvalue().encode()


COMMANDS: Commands = {"data": data}
