"""The settings of `data` for what a person has: each data set of the table recognises its own."""

from pathlib import Path
from typing import Any

from edgestill.pipeline.data.datasets import DATASETS
from edgestill.pipeline.data.datasets.given import PICTURES
from edgestill.pipeline.errors import ConfigError


def data_for(given: str) -> dict[str, Any]:
    """Return the settings of `data` for a path, a `module:function` or the name of a data set.

    Raises:
        ConfigError: no data set recognises it; says what is there.
        DataError: it is a table without columns.
    """
    for name, (config, _) in DATASETS.items():
        if (found := config.settings_for(given)) is not None:
            return {"name": name, **found}
    path = Path(given).expanduser()
    if path.is_dir():
        raise ConfigError([f"--data: {_unknown_folder(path, given)}"])
    there = "is of no kind that is read here" if path.exists() else "is not there"
    raise ConfigError(
        [
            f"--data: {given} {there}; give a folder of tables or of images by class, a table, an .npz archive, "
            f"package.module:function, or a name, as the kinds of data have them: {', '.join(DATASETS)}"
        ]
    )


def _unknown_folder(path: Path, given: str) -> str:
    entries = list(path.iterdir())
    pictures = sum(entry.suffix.lower() in PICTURES for entry in entries)
    if pictures:
        return f"{given} holds {pictures} images and no folder; put the images of each class in a folder of its own"
    if any(entry.is_dir() for entry in entries):
        return f"{given} holds folders, which no kind of data here reads: {', '.join(DATASETS)}"
    return f"{given} holds neither folders of images nor train.csv or train.tsv"
