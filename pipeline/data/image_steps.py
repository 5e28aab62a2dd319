"""Random changes of single images: each is a function of the images and of uniform numbers drawn for every image.

So the same numbers give the same images in any batch, and a view can come again. Pixels are [0, 1] before and after.
"""

# B batch, C channels, H W height and width

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.pixel_operations import multiplied, times_contrast, times_saturation, turned_hue
from edgestill.pipeline.data.policies import apply_policy, numbers_of

_TRIES = 10  # for a crop that fits, as in torchvision
_ERASED, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 3.3)  # area and ratio of Zhong et al. 2020, arXiv:1708.04896


class Step(NamedTuple):
    numbers: Callable[[AugmentConfig], int]  # that it needs for an image, uniform in [0, 1); 0 if it is off
    apply: Callable[[Tensor, AugmentConfig, Tensor], Tensor]  # images [B, C, H, W], numbers [count, B]


def resized_crop(images: Tensor, config: AugmentConfig, numbers: Tensor) -> Tensor:
    """Cut out a rectangle of each image, and resize it to the whole bilinearly."""
    top, left, height, width = draw_boxes(images.shape[-2:], config, numbers)
    return cropped(images, top, left, height, width)


def draw_boxes(size: torch.Size, config: AugmentConfig, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return top, left, height and width of each crop in pixels, [B] each: Szegedy et al. 2015, arXiv:1409.4842.

    Of ten tries the first that fits is taken. If none fits, it is the whole image, cut in its middle to the nearest
    allowed ratio.
    """
    assert config.crop is not None
    whole_height, whole_width = size
    area = whole_height * whole_width * _between(*config.crop, numbers[:_TRIES])
    ratio = _between(math.log(config.ratio[0]), math.log(config.ratio[1]), numbers[_TRIES : 2 * _TRIES]).exp()
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (width >= 1) & (width <= whole_width) & (height >= 1) & (height <= whole_height)
    earlier = torch.arange(_TRIES, 0, -1, device=numbers.device)[:, None]
    first = (fits * earlier).argmax(0, keepdim=True)
    found = fits.any(0)
    nearest = min(max(whole_width / whole_height, config.ratio[0]), config.ratio[1])
    width = torch.where(found, width.gather(0, first)[0], float(min(whole_width, round(whole_height * nearest))))
    height = torch.where(found, height.gather(0, first)[0], float(min(whole_height, round(whole_width / nearest))))
    top = torch.where(found, (numbers[-2] * (whole_height - height + 1)).floor(), ((whole_height - height) / 2).round())
    left = torch.where(found, (numbers[-1] * (whole_width - width + 1)).floor(), ((whole_width - width) / 2).round())
    return top, left, height, width


def cropped(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Resize the boxes [B] to the whole size. A box's edge repeats: pixels beyond it have no part."""
    rows = _places(images.shape[2], top, height)
    columns = _places(images.shape[3], left, width)
    shape = (len(images), images.shape[2], images.shape[3])
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], 3)
    return F.grid_sample(images.contiguous(), grid, align_corners=True)


def jitter(images: Tensor, config: AugmentConfig, numbers: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order; grey images have neither of the last two."""
    if config.brightness:
        images = multiplied(images, 1 + config.brightness * _signed(numbers[0]))
    if config.contrast:
        images = times_contrast(images, 1 + config.contrast * _signed(numbers[1]))
    if config.saturation:
        images = times_saturation(images, 1 + config.saturation * _signed(numbers[2]))
    return turned_hue(images, config.hue * _signed(numbers[3])) if config.hue else images


def erase(images: Tensor, config: AugmentConfig, numbers: Tensor) -> Tensor:
    """Fill a rectangle of some images with their mean: Zhong et al. 2020, arXiv:1708.04896.

    They draw again until a rectangle fits; here its sides are cut to the image's.
    """
    chance, area, ratio, row, column = numbers
    whole_height, whole_width = images.shape[2:]
    wanted = _between(*_ERASED, area) * whole_height * whole_width
    shape = _between(math.log(_ERASED_RATIO[0]), math.log(_ERASED_RATIO[1]), ratio).exp()
    width, height = (wanted * shape).sqrt().round(), (wanted / shape).sqrt().round()
    top, left = (
        (row * (whole_height - height).clamp(min=0)).round(),
        (column * (whole_width - width).clamp(min=0)).round(),
    )
    inside = in_boxes(images, top, left, top + height, left + width) & (chance < config.erase)[:, None, None, None]
    return torch.where(inside, images.mean((2, 3), keepdim=True), images)


def in_boxes(images: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """True for pixels of the boxes [B], as [B, 1, H, W]."""
    rows = torch.arange(images.shape[2], device=images.device)[None, :, None]
    columns = torch.arange(images.shape[3], device=images.device)[None, None, :]
    top, left, bottom, right = (edge[:, None, None] for edge in (top, left, bottom, right))
    return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))[:, None]


def _policy(images: Tensor, config: AugmentConfig, numbers: Tensor) -> Tensor:
    return apply_policy(images, config.policy, numbers)


def _places(side: int, first: Tensor, length: Tensor) -> Tensor:
    """Where in [-1, 1] of a side each of its pixels is read from, [B, side]."""
    middle = torch.arange(side, device=first.device) + 0.5
    within = (middle * (length / side)[:, None] - 0.5).clamp(min=0)
    place = first[:, None] + torch.minimum(within, (length - 1)[:, None])
    return place * (2 / max(side - 1, 1)) - 1


def _between(low: float, high: float, numbers: Tensor) -> Tensor:
    return low + (high - low) * numbers


def _signed(numbers: Tensor) -> Tensor:
    return 2 * numbers - 1


STEPS: dict[str, Step] = {
    "crop": Step(lambda config: 2 * _TRIES + 2 if config.crop is not None else 0, resized_crop),
    "policy": Step(lambda config: numbers_of(config.policy), _policy),
    "jitter": Step(lambda config: 4 * any((config.brightness, config.contrast, config.saturation, config.hue)), jitter),
    "erase": Step(lambda config: 5 if config.erase else 0, erase),
}
"""In the order in which they are applied, after pad and flip."""
