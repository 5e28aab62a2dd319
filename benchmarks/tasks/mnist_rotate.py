"""Does the student learn from upright digits that the teacher does not mind rotations of up to 45 degrees?

`_cnn` has a student that is a convolutional network.
"""

import math
from functools import partial

import torch
from tasks._mnist import make_bench, moved
from torch import Tensor

from edgestill.distill.methods.hard.affine import uniform

MAX_ROTATION_DEG = 45


def rotate(images: Tensor, generator: torch.Generator) -> Tensor:
    return moved(images, rotation=math.radians(MAX_ROTATION_DEG) * uniform(len(images), 1, generator)[:, 0])


VARIANTS = {"": partial(make_bench, "rotated", rotate, "mlp"), "_cnn": partial(make_bench, "rotated", rotate, "cnn")}
