"""Does the student learn from centred digits that the teacher does not mind shifts of up to 6 pixels?"""

from functools import partial

import torch
from tasks._mnist import make_bench, moved
from torch import Tensor

from edgestill.distill.methods.hard.affine import uniform

MAX_SHIFT_PX = 6


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    amounts = MAX_SHIFT_PX / 28 * uniform(len(images), 2, generator)
    return moved(images, shift_x=amounts[:, 0], shift_y=amounts[:, 1])


make = partial(make_bench, "shifted", shift, "mlp")
