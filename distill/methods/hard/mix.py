"""Learned mixing: an image blended with fixed operations on it, by learned shares."""

# B batch, J operations, C channels, H W height and width

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.distill.methods.hard.affine import AXES, warp
from edgestill.distill.methods.hard.augmentor import Augmentor

Operation = Callable[[Tensor], Tensor]

_GUMBEL_TEMPERATURE = 0.5
_WEAKEST = 0.01
_TINY = 1e-6


def _moved(**amounts: float) -> Operation:
    def move(images: Tensor) -> Tensor:
        row = images.new_tensor([amounts.get(axis, 0.0) for axis in AXES])
        return warp(images, row.expand(len(images), -1), "reflection")

    return move


def _blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _contrasted(images: Tensor) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + 2 * (images - mean)).clamp(0, 1)


def _without_the_middle(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    kept = torch.ones_like(images)
    kept[:, :, height // 3 : height - height // 3, width // 3 : width - width // 3] = 0
    return images * kept


def _half_of_another(images: Tensor) -> Tensor:
    """Replace the left half by another image's: CutMix with a fixed rectangle."""
    half = images.shape[3] // 2
    return torch.cat([images.roll(1, 0)[:, :, :, :half], images[:, :, :, half:]], dim=3)


OPERATIONS: dict[str, Operation] = {  # images in [0, 1] to the same; none needs a gradient of its own
    "left": _moved(shift_x=-0.15),
    "right": _moved(shift_x=0.15),
    "up": _moved(shift_y=-0.15),
    "down": _moved(shift_y=0.15),
    "turned left": _moved(rotation=-0.5),
    "turned right": _moved(rotation=0.5),
    "larger": _moved(scale=0.25),
    "smaller": _moved(scale=-0.25),
    "sheared": _moved(shear_x=0.3),
    "blurred": _blurred,
    "more contrast": _contrasted,
    "brighter": lambda images: images.sqrt(),
    "darker": lambda images: images.square(),
    "negative": lambda images: 1 - images,
    "without the middle": _without_the_middle,
    "another image": lambda images: images.roll(1, 0),
    "half of another": _half_of_another,
}


class Mix(Augmentor):
    """HARD-Mix: x~ = (1 - m) x + m sum_j w_j op_j(x), m = strength |u_0|, w = Gumbel-softmax(logits).

    phi is the strength and the logits. No source describes this family; the blend is AugMix's (Hendrycks et al. 2020,
    arXiv:1912.02781), learned where AugMix draws at random. Only m and w are differentiated, so any operation will
    do. A penalty keeps the entropy of softmax(logits) above a floor, lest a single operation be left.
    """

    def __init__(self, initial_share: float, min_entropy: float) -> None:
        super().__init__()
        self._min_entropy = min(min_entropy, math.log(len(OPERATIONS)))
        self.log_strength = nn.Parameter(torch.tensor(math.log(initial_share)))
        self.logits = nn.Parameter(torch.zeros(len(OPERATIONS)))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw [count, 1 + J]: u_0 from U(0, 1), then Gumbel noise."""
        drawn = torch.rand(count, 1 + len(OPERATIONS), generator=generator)
        gumbel = -(-drawn[:, 1:].clamp(_TINY, 1 - _TINY).log()).log()
        return torch.cat([drawn[:, :1], gumbel], dim=1)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        with torch.no_grad():
            made = torch.stack([operation(images) for operation in OPERATIONS.values()], dim=1)
        weights = F.softmax((self.logits + noise[:, 1:]) / _GUMBEL_TEMPERATURE, dim=1)
        mixed = torch.einsum("bj,bjchw->bchw", weights, made)
        share = (self.log_strength.exp() * noise[:, 0])[:, None, None, None]
        return images + share * (mixed - images)

    def regulariser(self) -> Tensor:
        return F.relu(self._min_entropy - self._entropy())

    @torch.no_grad()
    def project(self) -> None:
        self.log_strength.clamp_(math.log(_WEAKEST), 0.0)

    def measures(self) -> dict[str, float]:
        shares = F.softmax(self.logits.detach(), dim=0).tolist()
        named = dict(zip(OPERATIONS, shares, strict=True))
        return {
            "strength": float(self.log_strength.detach().exp()),
            "entropy": float(self._entropy().detach()),
            **{f"share of {name}": share for name, share in sorted(named.items(), key=lambda item: -item[1])[:4]},
        }

    def _entropy(self) -> Tensor:
        log_shares = F.log_softmax(self.logits, dim=0)
        return -(log_shares.exp() * log_shares).sum()
