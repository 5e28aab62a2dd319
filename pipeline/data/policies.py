"""RandAugment and TrivialAugment: operations drawn for each image by itself, from the same list of fourteen.

Cubuk et al. 2019, arXiv:1909.13719, with two operations at magnitude 9 of 30; Müller and Hutter 2021,
arXiv:2103.10158, with one of any strength from the wide ranges. Unlike there, shears are about the centre, pixels are
read bilinearly, and the wide shift is a share of the side: its 32 pixels are of 224.
"""

# B batch

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from edgestill.pipeline.data import pixel_operations as ops
from edgestill.pipeline.data.datasets.base import Policy

_BINS = 30  # strengths are multiples of 1 / 30 of the largest
_EACH = 3  # numbers for an operation: which, how strong, which way


class _Ranges(NamedTuple):
    """Largest magnitudes."""

    rounds: int  # operations an image
    strength: int | None  # in bins; None: drawn
    shear: float
    shift: float  # share of a side
    degrees: float
    factor: float  # beside 1
    bits: int  # taken away


_RANGES = {
    "randaugment": _Ranges(2, 9, shear=0.3, shift=150 / 331, degrees=30, factor=0.9, bits=4),
    "trivialaugment": _Ranges(1, None, shear=0.99, shift=32 / 224, degrees=135, factor=0.99, bits=6),
}


def numbers_of(policy: Policy) -> int:
    """Number of uniform numbers that a policy needs for an image."""
    return 0 if policy == "none" else _EACH * _RANGES[policy].rounds


def apply_policy(images: Tensor, policy: Policy, numbers: Tensor) -> Tensor:
    """Apply a policy's operations, by `numbers` [count, B] in [0, 1)."""
    ranges = _RANGES[policy]
    for which, strength, way in torch.split(numbers, _EACH):
        chosen = (which * len(OPERATIONS)).long()
        drawn = (
            (strength * (_BINS + 1)).floor() if ranges.strength is None else torch.full_like(strength, ranges.strength)
        )
        images = _operated(images, chosen, drawn / _BINS, torch.where(way < 0.5, -1.0, 1.0), ranges)
    return images


def _operated(images: Tensor, chosen: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    """Apply to each image its operation, all images of an operation together."""
    found = images.clamp(0, 1).contiguous()
    for number, operation in enumerate(OPERATIONS.values()):
        index = torch.nonzero(chosen == number).flatten()
        if operation is not None and len(index):
            found = found.index_copy(0, index, operation(found[index], strength[index], sign[index], ranges))
    return found


def _shear_x(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return _sheared(images, ranges.shear * strength * sign, torch.zeros_like(strength))


def _shear_y(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return _sheared(images, torch.zeros_like(strength), ranges.shear * strength * sign)


def _translate_x(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return _translated(images, 0, ranges.shift * images.shape[3] * strength * sign)


def _translate_y(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return _translated(images, 1, ranges.shift * images.shape[2] * strength * sign)


def _rotate(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    angle = torch.deg2rad(ranges.degrees * strength * sign)
    matrix = _identity(angle)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 0, 1], matrix[:, 1, 0] = -angle.sin(), angle.sin()
    return ops.warped(images, matrix)


def _brightness(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return ops.multiplied(images, 1 + ranges.factor * strength * sign)


def _saturation(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return ops.times_saturation(images, 1 + ranges.factor * strength * sign)


def _contrast(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return ops.times_contrast(images, 1 + ranges.factor * strength * sign)


def _sharpness(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return ops.sharpened(images, 1 + ranges.factor * strength * sign)


def _posterize(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return ops.posterized(images, 8 - (ranges.bits * strength).round())


def _solarize(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return ops.solarized(images, 1 - strength)


def _autocontrast(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return ops.stretched_contrast(images)


def _equalize(images: Tensor, strength: Tensor, sign: Tensor, ranges: _Ranges) -> Tensor:
    return ops.equalized(images)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(2, 3, device=like.device).repeat(len(like), 1, 1)


def _sheared(images: Tensor, along_x: Tensor, along_y: Tensor) -> Tensor:
    matrix = _identity(along_x)
    matrix[:, 0, 1], matrix[:, 1, 0] = along_x, along_y
    return ops.warped(images, matrix)


def _translated(images: Tensor, axis: int, pixels: Tensor) -> Tensor:
    matrix = _identity(pixels)
    matrix[:, axis, 2] = pixels
    return ops.warped(images, matrix)


_Operation = Callable[[Tensor, Tensor, Tensor, _Ranges], Tensor]  # images, strength in [0, 1], sign, ranges
OPERATIONS: dict[str, _Operation | None] = {
    "identity": None,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _brightness,
    "saturation": _saturation,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
