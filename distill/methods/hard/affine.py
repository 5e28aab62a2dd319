"""Spatial transforms: the warp itself, and a distribution of warps with a learned width."""

# B batch, C channels, H W height and width

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.distill.methods.hard.augmentor import Augmentor

Padding = Literal["reflection", "border", "zeros"]

AXES = ("rotation", "shift_x", "shift_y", "scale", "shear_x", "shear_y")
WIDEST = (math.pi, 0.5, 0.5, math.log(2.0), 0.5, 0.5)  # of the learned ranges: half a turn, half the image, a factor 2
_NARROWEST = 0.01  # share of the widest range; small, but gradients still lead back from it


def warp(images: Tensor, amounts: Tensor, padding: Padding) -> Tensor:
    """Scale, shear, rotate about the centre, then shift; bilinear, so values stay in their range.

    Args:
        images: [B, C, H, W].
        amounts: [B, 6] in the order of AXES: radians, fractions of the width and of the height, log of the factor,
            and the tangents of the two shears. All 0 is the identity.
    """
    rotation, shift_x, shift_y, scale, shear_x, shear_y = amounts.unbind(1)
    # grid_sample asks where each output pixel comes from, so the whole transform is inverted: in = A (out - shift).
    cos, sin, shrink = rotation.cos(), rotation.sin(), (-scale).exp()
    one = torch.ones_like(rotation)
    turn = torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)
    slant = torch.stack([one, -shear_x, -shear_y, one], dim=1).view(-1, 2, 2)
    back = shrink[:, None, None] * slant @ turn
    half = images.new_tensor([images.shape[3] / 2, images.shape[2] / 2])  # coordinates in [-1, 1] to pixels
    back = back * half[None, None, :] / half[None, :, None]
    shift = 2 * torch.stack([shift_x, shift_y], dim=1)[:, :, None]
    grid = F.affine_grid(torch.cat([back, -back @ shift], dim=2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def uniform(count: int, axes: int, generator: torch.Generator) -> Tensor:
    """Draw [count, axes] from U(-1, 1)."""
    return 2 * torch.rand(count, axes, generator=generator) - 1


class Affine(Augmentor):
    """HARD-Affine: amount = widest * share * u with u ~ U(-1, 1), and phi the logarithms of the six shares.

    The mean stays at the identity: a learned mean runs to a corner. The noise is uniform rather than a squashed
    Gaussian: the teacher's consistency is decided at the edge of the range.
    """

    def __init__(self, shape: Sequence[int], initial_share: float, padding: Padding) -> None:
        super().__init__()
        self._height, self._width = shape[-2:]
        self._padding: Padding = padding
        self.log_share = nn.Parameter(torch.full((len(AXES),), math.log(initial_share)))
        self.register_buffer("widest", torch.tensor(WIDEST))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return uniform(count, len(AXES), generator)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        return warp(images, self.get_buffer("widest") * self.log_share.exp() * noise, self._padding)

    @torch.no_grad()
    def project(self) -> None:
        self.log_share.clamp_(math.log(_NARROWEST), 0.0)

    def measures(self) -> dict[str, float]:
        """Upper edges of the six ranges, in the units of their names."""
        reach = self.get_buffer("widest") * self.log_share.detach().exp()
        rotation, shift_x, shift_y, scale, shear_x, shear_y = (float(value) for value in reach)
        return {
            "rotation_deg": math.degrees(rotation),
            "shift_x_px": shift_x * self._width,
            "shift_y_px": shift_y * self._height,
            "scale_factor": math.exp(scale),
            "shear_x_deg": math.degrees(math.atan(shear_x)),
            "shear_y_deg": math.degrees(math.atan(shear_y)),
        }
