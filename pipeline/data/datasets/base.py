"""Types that every data set's loader returns, and the settings that all data sets share."""

from typing import NamedTuple

import numpy as np
from pydantic import Field

from edgestill.pipeline.frozen import Frozen


class AugmentConfig(Frozen):
    """Ordinary augmentation of training images; without `views`, it forbids cached teacher outputs."""

    pad: int = Field(0, ge=0, le=64, description="random crop after padding by this many pixels")
    flip: bool = Field(False, description="random horizontal flip")

    @property
    def is_random(self) -> bool:
        return self.pad > 0 or self.flip


class DatasetConfig(Frozen):
    """Settings that every data set has."""

    reference_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="of the training part, set aside for influence weights and calibration"
    )
    validation_fraction: float = Field(0.15, gt=0, lt=0.5, description="of the training part, for every choice")
    augment: AugmentConfig = AugmentConfig()


class LabelledImages(NamedTuple):
    images: np.ndarray  # [N, C, H, W]: uint8, or float32 in [0, 1]
    targets: np.ndarray  # [N] int64


class LabelledTexts(NamedTuple):
    texts: tuple[str, ...]
    targets: np.ndarray  # [N] int64


class RawData(NamedTuple):
    """A data set before it is split; a part that is None is carved from `train`."""

    train: LabelledImages | LabelledTexts
    test: LabelledImages | LabelledTexts | None
    labels: tuple[str, ...]
    validation: LabelledImages | LabelledTexts | None = None
    unlabelled: np.ndarray | None = None  # [N, C, H, W] like train's images; more training images, without labels
    test_fraction: float = 0.2  # of train, to carve where `test` is None
