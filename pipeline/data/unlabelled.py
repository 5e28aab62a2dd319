"""Pictures without labels, of a folder or an .npz file: training examples that the teacher alone answers for."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from edgestill.pipeline.data.datasets.base import LabelledImages, RawData
from edgestill.pipeline.data.datasets.given import is_hidden
from edgestill.pipeline.data.datasets.npz import images_of
from edgestill.pipeline.data.decode import ENDINGS
from edgestill.pipeline.data.rows import Fit, Pictures, Rows, files_content, rows_of
from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.errors import DataError

_MOST_NAMED = 3
_USUAL_SHARE = 0.01  # of unreadable pictures, for kinds of data that have no such setting


def with_unlabelled(raw: RawData, config: Any) -> RawData:
    """Add the pictures of `data.unlabelled`, fitted to the training images, to those that the data set has itself.

    Raises:
        DataError: the folder holds no picture, or too many are unreadable; the file does not fit the training images.
    """
    folder: Path | None = config.unlabelled
    if folder is None:
        return raw
    assert isinstance(raw.train, LabelledImages)
    if not folder.is_dir():
        return _with_file(raw, raw.train, folder)
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


def _with_file(raw: RawData, train: LabelledImages, path: Path) -> RawData:
    """Add the images of an .npz file."""
    if isinstance(train.images, StoredImages):
        raise DataError(
            f"data.unlabelled: {path} holds arrays, and the training images are pictures in files; give a folder"
        )
    images = images_of(path)
    if images.shape[1:] != train.images.shape[1:]:
        raise DataError(
            f"data.unlabelled: {path} holds images of [C, H, W] = {list(images.shape[1:])} and the training images are "
            f"{list(train.images.shape[1:])}; they must be equal"
        )
    said = f"data.unlabelled: {len(images):,} images of {path} are learnt from the teacher's answers alone"
    return raw._replace(unlabelled=_behind(raw, train.images, images), cautions=(*raw.cautions, said))


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
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(root) / name for name in files if Path(name).suffix.lower() in ENDINGS and name[0] != "."]
    return found


def _joined(raw: RawData, images: StoredImages) -> np.ndarray | StoredImages:
    """Put the pictures behind the data set's own unlabelled ones, in files or in memory as its training images are."""
    assert isinstance(raw.train, LabelledImages)
    train, own = raw.train.images, raw.unlabelled
    if isinstance(train, StoredImages):
        return own.joined(images) if isinstance(own, StoredImages) else images
    return _behind(raw, train, images[slice(None)].numpy())


def _behind(raw: RawData, train: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Put images [N, C, H, W], in the training images' type, behind the data set's own unlabelled ones."""
    if images.dtype == np.uint8 and train.dtype != np.uint8:
        images = (images / np.float32(255)).astype(train.dtype)
    elif train.dtype == np.uint8 and images.dtype != np.uint8:
        images = np.rint(images * 255).astype(np.uint8)
    read = images.astype(train.dtype, copy=False)
    return read if raw.unlabelled is None else np.concatenate([np.asarray(raw.unlabelled), read])
