"""One rule from a picture to a network's pixels: training, run.py, `predict` and exported graphs follow it.

A decoded picture is uint8 [H, W, C], upright: alpha is composed on white, of 16 bits the upper 8 are kept, colour
becomes grey by ITU-R 601-2. It is resized as Pillow's BILINEAR does, which averages where it shrinks: first along the
width, then along the height, in bytes. Pillow 13 takes the height first where that is less work, so with Pillow these
are two calls. Needs numpy alone: run.py contains this text.
"""

# H W height and width of a picture, C channels

import numpy as np

RESIZES = ("crop", "pad", "stretch")
DEFAULT_RESIZE = "stretch"  # of tasks that name none
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
    return _along(_along(found, 1, inner[1], width), 0, inner[0], height)


def inner_size(old_height: int, old_width: int, height: int, width: int, resize: str) -> tuple[int, int]:
    """Return height and width that a picture is resized to, before it is cut or padded.

    The side that decides is exact; the other is rounded half up.
    """
    if resize == "stretch":
        return height, width
    by_width = (2 * width * old_height + old_width) // (2 * old_width)
    by_height = (2 * height * old_width + old_height) // (2 * old_height)
    if resize == "crop":
        return max(height, by_width), max(width, by_height)
    return max(1, min(height, by_width)), max(1, min(width, by_height))


def placed(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut off or pad with black equally on both sides, the odd pixel below or to the right."""
    return _along(_along(pixels, 1, pixels.shape[1], width), 0, pixels.shape[0], height)


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [H, W, C] as Pillow's BILINEAR does: first along the width, then along the height, in bytes."""
    return _along(_along(pixels, 1, width, width), 0, height, height)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Match uint8 [H, W, 1 or 3] to 1 or 3 channels: colour is weighed by ITU-R 601-2, grey is repeated."""
    if pixels.shape[2] == channels:
        return pixels
    if pixels.shape[2] == 3:
        weighed = np.full(pixels.shape[:2], 1 << 15, np.uint32)
        for channel, weight in enumerate(_GREY):
            weighed += pixels[..., channel] * np.uint32(weight)
        pixels = (weighed >> 16).astype(np.uint8)[..., None]
    return np.repeat(pixels[..., :1], channels, axis=2)


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Compose uint8 [H, W, 2 or 4], whose last channel is alpha, on white; rounded as by Pillow's `paste`."""
    alpha = pixels[..., -1:].astype(np.uint16)
    return ((pixels[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Keep the upper 8 of 16 bits, as Pillow does where it reads colour."""
    return (pixels >> 8).astype(np.uint8)


def _along(pixels: np.ndarray, axis: int, inner: int, side: int) -> np.ndarray:
    """Resize along an axis to `inner`, and cut off or pad with black to `side`; cut pixels are not computed."""
    old = pixels.shape[axis]
    if old == inner == side:
        return pixels
    lines = np.ascontiguousarray(pixels.swapaxes(0, axis)).reshape(old, -1)
    cut, border = max(0, inner - side) // 2, max(0, side - inner) // 2
    found = np.zeros((side, lines.shape[1]), np.uint8)
    for place in range(min(inner, side)):
        first, weights = _weights(old, inner, cut + place)
        total = weights @ lines[first : first + len(weights)] + (1 << (_BITS - 1))
        found[border + place] = np.minimum(total / (1 << _BITS), 255)
    moved = pixels.swapaxes(0, axis).shape
    return found.reshape(side, *moved[1:]).swapaxes(0, axis)


def _weights(old: int, inner: int, place: int) -> tuple[int, np.ndarray]:
    """Return the first old pixel that a new one covers, and the whole weights of those from there on, as floats.

    They fall linearly from the new pixel's centre. Distances are counted in parts of a pixel, 2 * inner in each.
    """
    centre, reach = (2 * place + 1) * old, 2 * max(old, inner)
    first, last = max(0, (centre - reach) // (2 * inner)), min(old, (centre + reach) // (2 * inner) + 1)
    near = np.maximum(0, reach - np.abs((2 * np.arange(first, last) + 1) * inner - centre))
    total = near.sum()
    return first, ((near << (_BITS + 1)) + total) // (2 * total) * 1.0  # sums of whole numbers are exact in float64
