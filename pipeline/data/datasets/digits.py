"""scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; they come with the library, so nothing is fetched."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from edgestill.pipeline.data.datasets.base import DatasetConfig, LabelledImages, RawData


class DigitsConfig(DatasetConfig):
    """scikit-learn's handwritten digits."""

    name: Literal["digits"] = "digits"
    test_fraction: float = Field(
        0.25, gt=0, lt=0.9, description="share of all images set aside for testing; only the report opens them"
    )

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        return {} if given == cls.model_fields["name"].default else None


def load_digits(config: DigitsConfig) -> RawData:
    """Return images of one channel, pixels 0..16 scaled to [0, 1]. The set has no test part of its own."""
    from sklearn.datasets import load_digits as load_bundled

    images, targets = load_bundled(return_X_y=True)
    pixels = (images.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    examples, labels = LabelledImages(pixels, targets.astype(np.int64)), tuple("0123456789")
    return RawData(examples, None, labels, test_fraction=config.test_fraction)
