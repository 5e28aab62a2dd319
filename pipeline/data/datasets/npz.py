"""Images in one .npz file, in the form of Keras' mnist.npz, so that MNIST and CIFAR-10 are read by the same code."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.data.datasets.base import DatasetConfig, LabelledImages, RawData
from edgestill.pipeline.data.datasets.npz_forms import as_bytes, as_integers, understand
from edgestill.pipeline.data.datasets.npz_sizes import ZIP_ERRORS, require_plausible
from edgestill.pipeline.errors import DataError, first_line
from edgestill.pipeline.frozen import GivenPath, existing_file
from edgestill.pipeline.task import Labels

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_UNLABELLED = "x_unlabelled"  # optional
_VALIDATION = ("x_val", "y_val")  # optional, together
_IMAGES = (_UNLABELLED, "x_train", "x")  # of a file of images alone, the first that is there


class NpzConfig(DatasetConfig):
    """An .npz file with x_train, y_train, x_test and y_test, and perhaps x_val with y_val, and x_unlabelled."""

    name: Literal["npz"] = "npz"
    path: GivenPath = Field(
        description=".npz file: x_* uint8 or floats in [0, 1], [N, H, W, C] or [N, H, W]; y_* integers, names or "
        "one-hot; x_val and y_val are the validation part, if given; x_unlabelled joins the training images"
    )
    labels: Labels | None = Field(None, description="class names in order; null names them 0, 1, 2, …")

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        return {"path": given} if given.endswith(".npz") and Path(given).expanduser().is_file() else None

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_file(path, info)


def load_npz(config: NpzConfig) -> RawData:
    """Read and check the four arrays, and the unlabelled images if present.

    Raises:
        DataError: the file is missing, truncated or holds a pickle; types or shapes are wrong; labels are outside the
            classes; or a class has no training images.
    """
    arrays, understood = understand(config.path, _read(config.path), config.labels)
    names = ("train", "test", *(["val"] if "x_val" in arrays else []))
    parts = {name: _checked(config.path, name, arrays[f"x_{name}"], arrays[f"y_{name}"]) for name in names}
    train = parts["train"]
    for name, part in parts.items():
        if part.images.shape[1:] != train.images.shape[1:]:
            raise DataError(
                f"{config.path}: x_train holds images of [C, H, W] = {list(train.images.shape[1:])} and x_{name} of "
                f"{list(part.images.shape[1:])}; they must be equal"
            )
    labels = (
        config.labels
        or understood.labels
        or tuple(str(k) for k in range(min(int(train.targets.max()) + 1, len(train.targets))))
    )
    if len(labels) < 2:
        raise DataError(f"{config.path}: y_train holds one class only; a classifier needs two or more")
    for name, part in parts.items():
        outside = part.targets[(part.targets < 0) | (part.targets >= len(labels))]
        if outside.size:
            way_out = "mend the labels or name more classes in data.labels"
            if outside.min() < 0:
                way_out = "renumber them, from 0 on"
            raise DataError(
                f"{config.path}: y_{name} holds label {int(outside[0])}, but the {len(labels)} classes are "
                f"0 to {len(labels) - 1}; {way_out}"
            )
    empty = np.flatnonzero(np.bincount(train.targets, minlength=len(labels)) == 0)
    if empty.size:
        raise DataError(
            f"{config.path}: class {int(empty[0])} ({labels[int(empty[0])]!r}) has no image in x_train; "
            "labels must be 0, 1, 2, … without gaps, so renumber them or add examples"
        )
    unlabelled = _unlabelled(config.path, arrays, train.images.shape)
    return RawData(train, parts["test"], labels, parts.get("val"), unlabelled=unlabelled, cautions=understood.cautions)


def images_of(path: Path) -> np.ndarray:
    """Read images without labels, [N, C, H, W]: the first of x_unlabelled, x_train and x in an .npz file.

    Raises:
        DataError: the file holds none of them, or what `load_npz` refuses.
    """
    arrays = _read(path, (), _IMAGES)
    found = next((arrays[key] for key in _IMAGES if key in arrays), None)
    if found is None:
        raise DataError(f"{path} holds none of {', '.join(_IMAGES)}")
    if np.issubdtype(found.dtype, np.floating):
        found = found.astype(np.float32)
        if found.size and not (found.min() >= 0 and found.max() <= 1):
            raise DataError(f"{path}: its images are floats from {found.min():g} to {found.max():g}, not in [0, 1]")
    checked = _checked(path, "unlabelled", found, np.zeros(found.shape[:1], np.int64)).images
    assert isinstance(checked, np.ndarray)
    return checked


def _read(
    path: Path, needed: tuple[str, ...] = _KEYS, others: tuple[str, ...] = (_UNLABELLED, *_VALIDATION)
) -> dict[str, np.ndarray]:
    keys = ", ".join(needed) or " or ".join(others)
    if not path.is_file():
        raise DataError(f"no data file at {path}; give an .npz file with {keys}")
    try:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic[:2] != b"PK" and magic != b"\x93NUMPY":
            raise ValueError("a pickle, or another kind of file")
        if magic == b"\x93NUMPY":
            raise DataError(f"{path} is a single .npy array; an .npz file with {keys} is needed")
        require_plausible(path, (*needed, *others))
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in needed if key not in archive.files]
            if missing:
                raise DataError(
                    f"{path} lacks {', '.join(missing)}; it holds {', '.join(archive.files) or 'nothing'}, "
                    f"and {keys} are needed: save the arrays under these names with np.savez"
                )
            if len({key in archive.files for key in _VALIDATION if key in others}) == 2:
                raise DataError(f"{path} holds one of {' and '.join(_VALIDATION)}; save both or none")
            arrays = {key: archive[key] for key in (*needed, *others) if key in archive.files}
            for key, array in arrays.items():
                if not isinstance(array, np.ndarray):  # numpy gives the bytes of a member that is no .npy file
                    raise ValueError(f"{key} is no array")
            return arrays
    except DataError:
        raise
    except ZIP_ERRORS as error:
        reason = first_line(error, "no data")
        if "pickle" in reason:  # numpy's advice, allow_pickle, would run its code
            reason = "arrays of numbers and of text (astype(str)) alone are read here, and it holds something else"
        raise DataError(f"{path} is truncated or not an .npz file ({reason}); fetch or save it again") from error


def _unlabelled(path: Path, arrays: dict[str, np.ndarray], train: tuple[int, ...]) -> np.ndarray | None:
    """Return the images without labels, of the training images' shape; None where there are none."""
    if _UNLABELLED not in arrays:
        return None
    images = arrays[_UNLABELLED]
    checked = _checked(path, "unlabelled", images, np.zeros(images.shape[:1], np.int64)).images
    assert isinstance(checked, np.ndarray)
    if checked.shape[1:] != train[1:]:
        raise DataError(
            f"{path}: x_unlabelled holds images of [C, H, W] = {list(checked.shape[1:])} and x_train of "
            f"{list(train[1:])}; they must be equal"
        )
    return checked


def _checked(path: Path, part: str, images: np.ndarray, targets: np.ndarray) -> LabelledImages:
    if images.dtype not in (np.uint8, np.float32) or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: x_{part} is {images.dtype} {list(images.shape)}; it must be uint8 [N, H, W, C] or [N, H, W], or "
            f"floats in [0, 1]{as_bytes(f'x_{part}', images)}"
        )
    if not np.issubdtype(targets.dtype, np.integer):
        raise DataError(
            f"{path}: y_{part} is {targets.dtype}; labels must be integers{as_integers(f'y_{part}', targets)}"
        )
    if targets.ndim == 2 and targets.shape[1] == 1:  # Keras' cifar10 has [N, 1]
        targets = targets[:, 0]
    if targets.shape != images.shape[:1]:
        raise DataError(
            f"{path}: y_{part} has shape {list(targets.shape)} for {len(images)} images; one label an image is needed"
        )
    if len(images) == 0 or min(images.shape[1:]) == 0:
        raise DataError(f"{path}: x_{part} is empty ({list(images.shape)})")
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[3] > 16:
        raise DataError(
            f"{path}: x_{part} {list(images.shape)} would have {images.shape[3]} channels; "
            "the channel axis comes last: [N, H, W, C]"
        )
    return LabelledImages(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), targets.astype(np.int64))
