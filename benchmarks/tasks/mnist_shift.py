"""Does the student learn from centred digits that the teacher does not mind shifts of up to 6 pixels?"""

from functools import partial

import torch
from torch import Tensor

from pipeline.data import augment
from pipeline.datasets.base import AugmentConfig
from tasks._mnist import make_bench

MAX_SHIFT_PX = 6


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    return augment(images, AugmentConfig(pad=MAX_SHIFT_PX), generator)


make = partial(make_bench, "shifted", shift, "mlp")
