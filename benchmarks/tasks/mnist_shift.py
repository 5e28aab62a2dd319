"""Does the student learn from centred digits that the teacher does not mind shifts of up to 6 pixels?

`_cnn` has a student that is a convolutional network; `_4px` shifts by up to 4 pixels, on which nothing was tuned.
"""

from functools import partial

import torch
from tasks._mnist import make_bench, moved
from torch import Tensor

from edgestill.distill.methods.hard.affine import uniform


def shift(most_px: int, images: Tensor, generator: torch.Generator) -> Tensor:
    amounts = most_px / 28 * uniform(len(images), 2, generator)
    return moved(images, shift_x=amounts[:, 0], shift_y=amounts[:, 1])


VARIANTS = {
    "": partial(make_bench, "shifted", partial(shift, 6), "mlp"),
    "_cnn": partial(make_bench, "shifted", partial(shift, 6), "cnn"),
    "_4px": partial(make_bench, "shifted_4px", partial(shift, 4), "mlp"),
}
