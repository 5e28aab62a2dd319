"""The table of data sets: a file and a line each."""

from collections.abc import Callable
from typing import Any

from pipeline.datasets.base import LabelledImages, RawData
from pipeline.datasets.digits import DigitsConfig, load_digits
from pipeline.datasets.npz import NpzConfig, load_npz

DATASETS: dict[str, tuple[type[Any], Callable[[Any], RawData]]] = {
    "digits": (DigitsConfig, load_digits),
    "npz": (NpzConfig, load_npz),
}

__all__ = ["DATASETS", "DigitsConfig", "LabelledImages", "NpzConfig", "RawData"]
