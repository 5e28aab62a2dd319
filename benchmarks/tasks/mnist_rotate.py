"""Does the student learn from upright digits that the teacher does not mind rotations of up to 45 degrees?"""

import math
from functools import partial

import torch
from torch import Tensor

from distill.augmentors.affine import AXES, uniform, warp
from tasks._mnist import make_bench

MAX_ROTATION_DEG = 45


def rotate(images: Tensor, generator: torch.Generator) -> Tensor:
    amounts = torch.zeros(len(images), len(AXES))
    amounts[:, AXES.index("rotation")] = math.radians(MAX_ROTATION_DEG) * uniform(len(images), 1, generator)[:, 0]
    return warp(images, amounts, "zeros")


make = partial(make_bench, "rotated", rotate, "mlp")
