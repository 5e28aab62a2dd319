"""One rule from a picture to a network's pixels: training, run.py, `predict` and exported graphs follow it.

Resizing is Pillow's BILINEAR, which averages where it shrinks; a numpy form of it gives the same bytes without Pillow.
Needs numpy alone: run.py contains this text.
"""

# H W height and width of a picture, C channels

import math

import numpy as np

RESIZES = ("crop", "pad", "stretch")
_BITS = 22  # of Pillow's fixed-point weights, 32 - 8 - 2
_GREY = (19595, 38470, 7471)  # of red, green and blue in 65,536ths: ITU-R 601-2, as Pillow rounds it


def fitted(pixels: np.ndarray, channels: int, height: int, width: int, resize: str) -> np.ndarray:
    """Return a decoded picture as a network takes it: uint8 [H, W, C] to uint8 [height, width, channels].

    Args:
        resize: `crop` resizes until the picture covers height x width, and cuts off what is beyond on both sides;
            `pad` resizes until it fits inside, with black borders; `stretch` changes its proportions.
    """
    found = with_channels(pixels, channels)
    inner = inner_size(found.shape[0], found.shape[1], height, width, resize)
    return placed(resized(found, *inner), height, width)


def inner_size(old_height: int, old_width: int, height: int, width: int, resize: str) -> tuple[int, int]:
    """Return height and width that a picture is resized to, before it is cut or padded."""
    if resize == "stretch" or (old_height, old_width) == (height, width):
        return height, width
    shares = height / old_height, width / old_width
    share = max(shares) if resize == "crop" else min(shares)
    # The side that decides is exact; the other is rounded half up.
    inner_height = height if share == shares[0] else max(1, math.floor(old_height * share + 0.5))
    inner_width = width if share == shares[1] else max(1, math.floor(old_width * share + 0.5))
    return inner_height, inner_width


def placed(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut off or pad with black equally on both sides, the odd pixel below or to the right."""
    for axis, side in ((0, height), (1, width)):
        old = pixels.shape[axis]
        if old > side:
            first = (old - side) // 2
            pixels = pixels.take(range(first, first + side), axis)
        elif old < side:
            first = (side - old) // 2
            widths = [(0, 0)] * pixels.ndim
            widths[axis] = (first, side - old - first)
            pixels = np.pad(pixels, widths)
    return pixels


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Match uint8 [H, W, 1 or 3] to 1 or 3 channels: colour is weighed by ITU-R 601-2, grey is repeated."""
    if pixels.shape[2] == channels:
        return pixels
    if pixels.shape[2] == 3:
        weighed = pixels.astype(np.uint32) @ np.array(_GREY, np.uint32)
        pixels = ((weighed + 32768) >> 16).astype(np.uint8)[..., None]
    return np.repeat(pixels[..., :1], channels, axis=2)


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [H, W, C] as Pillow's BILINEAR does: first along the width, then along the height, in bytes."""
    for axis, side in ((1, width), (0, height)):
        if pixels.shape[axis] != side:
            pixels = _resized_along(pixels.swapaxes(0, axis), side).swapaxes(0, axis)
    return pixels


def _resized_along(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resize along the first axis, with weights that fall linearly over the pixels that a new one covers."""
    old = pixels.shape[0]
    scale = old / side
    support = max(scale, 1.0)
    found = np.empty((side, *pixels.shape[1:]), np.uint8)
    for place in range(side):
        centre = (place + 0.5) * scale
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), old)
        weights = np.maximum(0.0, 1 - np.abs((np.arange(first, last) - centre + 0.5) / support))
        weights /= weights.sum()
        fixed = np.floor(weights * (1 << _BITS) + 0.5).astype(np.int64)
        total = np.tensordot(fixed, pixels[first:last].astype(np.int64), axes=1) + (1 << (_BITS - 1))
        found[place] = np.clip(total >> _BITS, 0, 255)
    return found
