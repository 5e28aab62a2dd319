"""The table of data sets: each has a file of its own and a line here."""

from collections.abc import Callable
from typing import Any

from edgestill.pipeline.data.datasets.base import LabelledImages, LabelledTexts, RawData
from edgestill.pipeline.data.datasets.cifar import CifarConfig, load_cifar
from edgestill.pipeline.data.datasets.digits import DigitsConfig, load_digits
from edgestill.pipeline.data.datasets.npz import NpzConfig, load_npz
from edgestill.pipeline.data.datasets.text import TextConfig, load_text

DATASETS: dict[str, tuple[type[Any], Callable[[Any], RawData]]] = {
    "digits": (DigitsConfig, load_digits),
    "npz": (NpzConfig, load_npz),
    "cifar": (CifarConfig, load_cifar),
    "text": (TextConfig, load_text),
}

__all__ = [
    "DATASETS",
    "CifarConfig",
    "DigitsConfig",
    "LabelledImages",
    "LabelledTexts",
    "NpzConfig",
    "RawData",
    "TextConfig",
]
