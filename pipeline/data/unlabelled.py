"""Pictures of a folder without labels: training examples that the teacher alone answers for."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from edgestill.pipeline.data.datasets.base import LabelledImages, RawData
from edgestill.pipeline.data.decode import ENDINGS
from edgestill.pipeline.data.rows import Fit, Pictures, Rows, files_content, rows_of
from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.errors import DataError

_MOST_NAMED = 3
_USUAL_SHARE = 0.01  # of unreadable pictures, for kinds of data that have no such setting


def with_unlabelled(raw: RawData, config: Any) -> RawData:
    """Add the pictures of `data.unlabelled`, fitted to the training images, to those that the data set has itself.

    Raises:
        DataError: the folder holds no picture, or too many are unreadable.
    """
    folder: Path | None = config.unlabelled
    if folder is None:
        return raw
    assert isinstance(raw.train, LabelledImages)
    channels, height, width = (int(side) for side in raw.train.images.shape[1:])
    if channels not in (1, 3):
        raise DataError(f"data.unlabelled: pictures have 1 or 3 channels, and the training images have {channels}")
    fit = Fit((height, width), channels, getattr(config, "resize", "crop"))
    rows = _decoded(folder, fit, getattr(config, "max_unreadable", _USUAL_SHARE))
    bad = f"; {len(rows.unreadable):,} unreadable ones are left out" if rows.unreadable else ""
    said = (
        f"data.unlabelled: {len(rows.images):,} pictures of {folder} are learnt from the teacher's answers alone{bad}"
    )
    return raw._replace(unlabelled=_joined(raw, rows.images), cautions=(*raw.cautions, said))


def _decoded(folder: Path, fit: Fit, most_unreadable: float) -> Rows:
    """Decode all pictures of a folder and those in it, sorted by name."""
    paths = sorted(_pictures(folder))
    if not paths:
        raise DataError(f"data.unlabelled: {folder} holds no picture ({', '.join(sorted(ENDINGS))})")
    names = [str(path.relative_to(folder)) for path in paths]
    rows = rows_of(Pictures(names, lambda: iter(paths), files_content(folder, paths, names)), fit)
    if len(rows.unreadable) > most_unreadable * len(paths):
        few = [f"{names[at]} ({reason})" for at, reason in list(rows.unreadable.items())[:_MOST_NAMED]]
        raise DataError(
            f"data.unlabelled: {len(rows.unreadable):,} of {len(paths):,} pictures of {folder} cannot be read: "
            f"{', '.join(few)}; mend or remove them"
        )
    return rows


def _pictures(folder: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(folder):  # links to folders are not followed
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root) / name for name in files if Path(name).suffix.lower() in ENDINGS and name[0] != "."]
    return found


def _joined(raw: RawData, images: StoredImages) -> np.ndarray | StoredImages:
    """Put the pictures behind the data set's own unlabelled ones, in files or in memory as its training images are."""
    assert isinstance(raw.train, LabelledImages)
    train, own = raw.train.images, raw.unlabelled
    if isinstance(train, StoredImages):
        return own.joined(images) if isinstance(own, StoredImages) else images
    pixels = images[slice(None)].numpy()
    read = pixels if train.dtype == np.uint8 else (pixels / np.float32(255)).astype(train.dtype)
    return read if own is None else np.concatenate([np.asarray(own), read])
