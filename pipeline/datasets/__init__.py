"""The table of data sets: a file and a line each."""

from collections.abc import Callable
from typing import Any

from pipeline.datasets.base import LabelledImages, RawData
from pipeline.datasets.cifar import CifarConfig, load_cifar
from pipeline.datasets.digits import DigitsConfig, load_digits
from pipeline.datasets.npz import NpzConfig, load_npz

DATASETS: dict[str, tuple[type[Any], Callable[[Any], RawData]]] = {
    "digits": (DigitsConfig, load_digits),
    "npz": (NpzConfig, load_npz),
    "cifar": (CifarConfig, load_cifar),
}

__all__ = ["DATASETS", "CifarConfig", "DigitsConfig", "LabelledImages", "NpzConfig", "RawData"]
