"""Other forms of arrays than Keras': floats, channels first, one-hot labels, labels by name."""

# N images, H W height and width, C channels, K classes

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgestill.pipeline.errors import DataError

_CHANNELS = (1, 3, 4)


class Understood(NamedTuple):
    """Facts found in the arrays, beside the arrays in Keras' form."""

    labels: tuple[str, ...] | None  # class names, where labels are names
    cautions: tuple[str, ...]


def understand(
    path: Path, arrays: Mapping[str, np.ndarray], labels: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], Understood]:
    """Bring arrays named x_* and y_* to Keras' form: channels last, uint8 or float32 in [0, 1], integer labels.

    Args:
        labels: class names in order, where they are configured.

    Raises:
        DataError: floats are not in [0, 1], or a label is none of the names.
    """
    found, cautions = dict(arrays), list[str]()
    images = [key for key in arrays if key.startswith("x_")]
    if images and all(_is_channels_first(arrays[key].shape) for key in images):
        shape = list(arrays[images[0]].shape)
        cautions.append(
            f"{path}: {images[0]} {shape} is taken as [N, C, H, W], "
            f"{shape[1]} channels first of {shape[2]} x {shape[3]} "
            "pixels; if that is wrong, save it as [N, H, W, C]"
        )
        found |= {key: np.moveaxis(arrays[key], 1, -1) for key in images}
    for key in images:
        if found[key].dtype.kind == "f":
            found[key] = _in_unit(path, key, found[key])
    targets = [key for key in arrays if key.startswith("y_")]
    names = _names([arrays[key] for key in targets], labels)
    for key in targets:
        found[key], caution = _numbered(path, key, arrays[key], names)
        cautions += [caution] if caution else []
    return found, Understood(names, tuple(cautions))


def _is_channels_first(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and shape[1] in _CHANNELS and shape[3] not in _CHANNELS


def _in_unit(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    if images.size == 0:
        return images.astype(np.float32)
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        return images.astype(np.float32, copy=False)
    if not np.isfinite([low, high]).all():
        fix = "some are not numbers; mend those"
    elif low >= 0 and 1 < high <= 255:
        fix = f"save {key}.astype('uint8'), or {key} / 255"
    else:
        fix = "leave normalisation out, which every network here does by itself"
    raise DataError(f"{path}: {key} is {images.dtype} from {low:g} to {high:g}; floats must lie in [0, 1]: {fix}")


def as_bytes(key: str, images: np.ndarray) -> str:
    """End of a sentence about pixels of another type: the expression that mends it, where there is one."""
    if images.size == 0 or images.ndim not in (3, 4) or images.dtype.kind not in "uib":
        return ""
    if images.dtype.kind == "b":
        return f": save {key}.astype('uint8') * 255"
    if images.min() >= 0 and images.max() <= 255:
        return f": save {key}.astype('uint8')"
    return f": scale {key} to 0 to 255, and save it as uint8"


def as_integers(key: str, targets: np.ndarray) -> str:
    """End of a sentence about labels of another type: the expression that mends it, where there is one."""
    if targets.dtype.kind == "b" or (targets.dtype.kind == "f" and (targets == targets.round()).all()):
        return f": save {key}.astype('int64')"
    return ""


def _names(targets: Sequence[np.ndarray], labels: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the class names if labels are strings: those configured, or those found, sorted."""
    if not targets or any(each.dtype.kind not in "US" for each in targets):
        return None
    return tuple(labels) if labels else tuple(sorted({str(name) for name in np.unique(_texts(targets[0]))}))


def _texts(targets: np.ndarray) -> np.ndarray:
    return np.char.decode(targets, "utf-8") if targets.dtype.kind == "S" else targets


def _numbered(
    path: Path, key: str, targets: np.ndarray, names: tuple[str, ...] | None
) -> tuple[np.ndarray, str | None]:
    """Return integer labels, and perhaps a caution."""
    if names is not None:
        texts = _texts(targets).reshape(-1)
        unknown = sorted(set(texts.tolist()) - set(names))
        if unknown:
            raise DataError(f"{path}: {key} holds label {unknown[0]!r}, which is none of the {len(names)} classes")
        numbers = {name: number for number, name in enumerate(names)}
        return np.array([numbers[text] for text in texts.tolist()], np.int64), None
    if targets.ndim == 2 and targets.shape[1] > 1 and targets.dtype.kind in "uifb":
        is_one_hot = bool(np.isin(targets, (0, 1)).all() and (targets.sum(1) == 1).all())
        if is_one_hot:
            return targets.argmax(1), f"{path}: {key} {list(targets.shape)} is one-hot; its columns are the classes"
    return targets, None
