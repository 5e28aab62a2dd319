"""Pixels as a foreign network wants them: its channels, size, crop and normalisation, from raw pixels in [0, 1].

Resize and crop are two matrix products, with the weights of torch's own antialiased resize. So a gradient passes
through, and every exporter knows the operators.
"""

# B batch, C channels, H W height and width

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.networks.network import Normalize

Interpolation = Literal["bilinear", "bicubic", "nearest"]
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey of colour


class Sight(NamedTuple):
    """Images that a network was trained on."""

    channels: int
    size: tuple[int, int] | None = None  # height and width; None: the data's
    crop: float = 1.0  # share of the resized shorter side that is kept, in the centre
    stretch: bool = False  # resize both sides to the size, whatever the image's shape
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] | None = None  # a value a channel; None: pixels go in without normalisation
    std: tuple[float, ...] | None = None
    range: tuple[float, float] = (0.0, 1.0)  # of its pixels before normalisation

    def described(self) -> str:
        """Describe the images in words: `224 x 224 pixels (bicubic, centre 0.875)`."""
        if self.size is None:
            return "the data's own pixels"
        crop = f", centre {self.crop:g}" if self.crop < 1 else ""
        return f"{self.size[0]} x {self.size[1]} pixels ({self.interpolation}{crop})"


class Pixels(nn.Module):
    """First layer of a foreign image network: [B, C, H, W] of the data, in [0, 1], to what the network takes."""

    def __init__(self, shape: tuple[int, ...], sight: Sight) -> None:
        """Make it.

        Raises:
            CheckpointError: the normalisation or the channels do not fit the images.
        """
        super().__init__()
        given, height, width = shape
        self.greys = _LUMA if (given, sight.channels) == (3, 1) else None
        self.repeats = (given, sight.channels) == (1, 3)
        if {given, sight.channels} not in ({1, 3}, {given}):
            raise CheckpointError(
                f"the teacher takes images of {sight.channels} channels, and the data's have {given}; set data.channels"
            )
        self.normalize = _normalisation(sight)
        self._resizes = sight.size is not None and (tuple(sight.size) != (height, width) or sight.crop < 1)
        if self._resizes and sight.size is not None:
            scaled = _scaled((height, width), sight.size, sight)
            for name, side, onto, kept in zip(("rows", "columns"), (height, width), scaled, sight.size, strict=True):
                self.register_buffer(name, _weights(side, onto, kept, sight.interpolation), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.greys is not None:
            inputs = (inputs * inputs.new_tensor(self.greys).view(-1, 1, 1)).sum(1, keepdim=True)
        if self._resizes:
            inputs = self.get_buffer("rows") @ inputs @ self.get_buffer("columns").T
        if self.repeats:
            inputs = torch.cat([inputs] * 3, 1)
        normalised: Tensor = self.normalize(inputs)
        return normalised


def _normalisation(sight: Sight) -> nn.Module:
    """Return (low + (high - low) x - mean) / std as one normalisation of x."""
    low, high = sight.range
    mean = sight.mean or (0.0,) * sight.channels
    std = sight.std or (1.0,) * sight.channels
    if not len(mean) == len(std) == sight.channels:
        raise CheckpointError(
            f"teacher.mean and teacher.std hold {len(mean)} and {len(std)} values, and the teacher's images have "
            f"{sight.channels} channel(s); give a value a channel"
        )
    if (low, high) == (0.0, 1.0) and not any(mean) and set(std) == {1.0}:
        return nn.Identity()
    span = high - low
    return Normalize([(value - low) / span for value in mean], [value / span for value in std])


def _scaled(given: tuple[int, int], size: tuple[int, int], sight: Sight) -> tuple[int, int]:
    """Height and width after the resize, before the crop: as timm, torchvision and transformers round them."""
    if sight.stretch:
        return (max(size[0], int(size[0] / sight.crop)), max(size[1], int(size[1] / sight.crop)))
    factor = max(int(size[0] / sight.crop) / given[0], int(size[1] / sight.crop) / given[1])
    return max(size[0], int(given[0] * factor + 1e-6)), max(size[1], int(given[1] * factor + 1e-6))


def _weights(given: int, scaled: int, kept: int, how: Interpolation) -> Tensor:
    """Weights [kept, given] of each input row (or column) in each output row: resize to `scaled`, crop the centre."""
    eye = torch.eye(given, dtype=torch.float64)[None, None]
    if how == "nearest":
        resized = F.interpolate(eye, size=(scaled, given), mode="nearest-exact")
    else:
        resized = F.interpolate(eye, size=(scaled, given), mode=how, antialias=True, align_corners=False)
    start = round((scaled - kept) / 2)
    return resized[0, 0, start : start + kept].float()
