"""Pictures given as Python objects: a torch Dataset, a pair of arrays, a pair or a mapping of either."""

# N pictures, C channels, H W height and width

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgestill.pipeline.data.decode import UnreadableError, pixels_of
from edgestill.pipeline.errors import DataError, first_line

_SAMPLES = 16
_PARTS = ("train", "validation", "test")


class Given(NamedTuple):
    """Pictures of one part and their labels, as they were given."""

    items: Any  # indexed to (picture, label), or a pair of arrays
    labels: tuple[str, ...] | None  # class names, if the object has them

    def __len__(self) -> int:
        return len(self.items[0]) if is_pair(self.items) else len(self.items)

    def pixels(self) -> Iterator[np.ndarray]:
        """Yield each picture, uint8 [H, W, 1 or 3]."""
        for at in range(len(self)):
            yield picture_of(self.item(at)[0], at)

    def item(self, at: int) -> tuple[Any, Any]:
        """Return a picture and its label."""
        if is_pair(self.items):
            return self.items[0][at], self.items[1][at]
        try:
            found = self.items[at]
        except Exception as error:  # it is the user's code
            raise DataError(f"item {at} of the data set fails: {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise DataError(f"item {at} of the data set is a {type(found).__name__}; it must be (picture, label)")
        return found[0], found[1]

    def sample(self) -> str:
        """Digest of the length and of some pictures with their labels."""
        found = hashlib.sha256(f"{len(self)}".encode())
        for at in self._some():
            image, label = self.item(at)
            pixels = picture_of(image, at)
            found.update(f"{pixels.shape} {label_of(label, at)}".encode() + pixels.tobytes())
        return found.hexdigest()

    def require_steady(self) -> None:
        """Refuse a data set whose items are other pictures each time.

        Raises:
            DataError: one of some items is.
        """
        for at in self._some():
            one, again = (picture_of(self.item(at)[0], at) for _ in range(2))
            if not np.array_equal(one, again):
                raise DataError(
                    f"item {at} of the data set is another picture each time; leave random transforms to data.augment"
                )

    def _some(self) -> list[int]:
        places: list[int] = np.unique(np.linspace(0, len(self) - 1, _SAMPLES).astype(int)).tolist()
        return places


def given_parts(value: Any) -> dict[str, Given]:
    """Sort what was given into parts: a data set or a pair of arrays is train, a pair of data sets train and test.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(value, Mapping):
        if "train" not in value or set(value) - set(_PARTS):
            raise DataError(f"a mapping of data sets needs train, and perhaps validation and test; not {list(value)}")
        return {part: _given(value[part]) for part in _PARTS if value.get(part) is not None}
    if isinstance(value, tuple | list) and len(value) == 2 and not is_pair(value):
        return {"train": _given(value[0]), "test": _given(value[1])}
    return {"train": _given(value)}


def is_pair(value: Any) -> bool:
    """True for a pair of arrays: pictures [N, …] and labels [N] or [N, 1]."""
    if not (isinstance(value, tuple | list) and len(value) == 2):
        return False
    shapes = [getattr(each, "shape", None) for each in value]
    return shapes[0] is not None and len(shapes[0]) >= 3 and hasattr(value[1], "__len__")


def picture_of(value: Any, at: int) -> np.ndarray:
    """Return a picture as uint8 [H, W, 1 or 3]: one of Pillow, an array [H, W, C], a tensor [C, H, W], or [H, W].

    Raises:
        DataError: it is none of these, or its floats are not in [0, 1].
    """
    if hasattr(value, "convert") and hasattr(value, "getbands"):
        try:
            return pixels_of(value)
        except UnreadableError as error:
            raise DataError(f"picture {at} cannot be used: {error}") from None
    is_tensor = type(value).__module__.partition(".")[0] == "torch"
    found = np.asarray(value.detach().cpu() if is_tensor else value)
    if found.ndim == 2:
        found = found[..., None]
    elif found.ndim == 3 and found.shape[0] in (1, 3) and (is_tensor or found.shape[2] not in (1, 3)):
        found = np.moveaxis(found, 0, -1)
    if found.ndim != 3 or found.shape[2] not in (1, 3) or 0 in found.shape:
        raise DataError(f"picture {at} is {type(value).__name__} {list(found.shape)}; it must have 1 or 3 channels")
    if found.dtype.kind == "f":
        low, high = float(found.min()), float(found.max())
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"picture {at} has floats from {low:.3g} to {high:.3g}; they must lie in [0, 1]: leave normalisation "
                "out, which every network here does by itself"
            )
        found = np.round(found * 255).astype(np.uint8)
    if found.dtype != np.uint8:
        raise DataError(f"picture {at} is {found.dtype}; it must be uint8, or floats in [0, 1]")
    return np.ascontiguousarray(found)


def label_of(value: Any, at: int) -> str:
    """Return a label as text: a name, or a whole number."""
    if isinstance(value, str):
        return value
    found = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value).reshape(-1)
    if found.size != 1 or (found.dtype.kind == "f" and found[0] != int(found[0])) or found.dtype.kind not in "iufbU":
        raise DataError(f"the label of picture {at} is {value!r}; it must be a class's number or its name")
    return str(found[0]) if found.dtype.kind == "U" else str(int(found[0]))


def labels_of(given: Given, names: Sequence[str] | None) -> list[str]:
    """Return the labels of all items as text; class numbers by their names, where there are any."""
    return [_named(label_of(label, at), names, at) for at, label in enumerate(_labels(given))]


def _named(label: str, names: Sequence[str] | None, at: int) -> str:
    if not names or label in names:
        return label
    if not label.isdigit() or int(label) >= len(names):
        raise DataError(f"the label of picture {at} is {label!r}, and there are {len(names)} classes")
    return names[int(label)]


def _labels(given: Given) -> Iterable[Any]:
    """Return the labels without the pictures where the object keeps them apart, as torchvision's do."""
    if is_pair(given.items):
        return given.items[1]  # type: ignore[no-any-return]
    kept = getattr(given.items, "targets", None)
    if kept is not None and len(kept) == len(given) and getattr(given.items, "target_transform", None) is None:
        return kept  # type: ignore[no-any-return]
    return (given.item(at)[1] for at in range(len(given)))


def _given(value: Any) -> Given:
    if not is_pair(value) and not (hasattr(value, "__getitem__") and hasattr(value, "__len__")):
        raise DataError(
            f"a {type(value).__name__} is no data; give a torch Dataset with a length, a pair of arrays (pictures, "
            "labels), a pair (train, test) of those, or a mapping with train, validation and test"
        )
    if is_pair(value) and len(value[0]) != len(value[1]):
        raise DataError(f"there are {len(value[0])} pictures and {len(value[1])} labels; one label a picture is needed")
    names = getattr(value, "classes", None)
    found = Given(value, tuple(map(str, names)) if names is not None else None)
    if len(found) == 0:
        raise DataError("the data set is empty")
    return found
