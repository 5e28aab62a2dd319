"""`mnist_shift` by up to 4 pixels instead of 6, on which nothing was tuned."""

from functools import partial

import torch
from tasks._mnist import make_bench, moved
from torch import Tensor

from edgestill.distill.methods.hard.affine import uniform


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    amounts = 4 / 28 * uniform(len(images), 2, generator)
    return moved(images, shift_x=amounts[:, 0], shift_y=amounts[:, 1])


make = partial(make_bench, "shifted_4px", shift, "mlp")
