"""One rule from a file to a picture, as a viewer shows it: docs/howto/data.md writes it down."""

# H W height and width, C channels

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgestill.pipeline.data.pixels import eight_bits, inner_size, on_white, placed, with_channels
from edgestill.pipeline.errors import first_line

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES, MAX_PIXELS, MAX_SIDE = 2**28, 2**26, 2**15  # as a bundle's run.py has them
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")  # for others, Pillow would run programs
ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp"))
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of one channel


class UnreadableError(ValueError):
    """A picture that cannot be decoded; `str()` is the reason, a few words."""


class Header(NamedTuple):
    """Facts of a picture before its pixels are decoded."""

    height: int
    width: int
    is_grey: bool


def header_of(data: bytes | Path) -> Header:
    """Read the size of the picture in a file or in its bytes, upright, and if it is stored as grey.

    Raises:
        UnreadableError: it is no picture of FORMATS, or is too large.
    """
    with _opened(data) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # the tag of the orientation
        turned = turned and image.format != "TIFF"  # whose size Pillow gives upright
        width, height = (image.height, image.width) if turned else image.size
        return Header(height, width, image.mode in _GREY)


def decode(data: bytes) -> np.ndarray:
    """Decode a file's bytes to uint8 [H, W, 1 or 3].

    Raises:
        UnreadableError: it is no picture of FORMATS, is truncated or damaged, or is too large.
    """
    with _opened(data) as image:
        image.load()
        return pixels_of(image)


def pixels_of(image: "Image.Image") -> np.ndarray:
    """Return the pixels of Pillow's picture, uint8 [H, W, 1 or 3]: upright, composed on white, of 8 bits.

    Raises:
        UnreadableError: its pixels are floats, or of more than 16 bits.
    """
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("F", "I") or upright.mode.startswith("I;16"):
        return _of_16_bits(np.asarray(upright))
    is_grey = upright.mode in _GREY
    if upright.has_transparency_data:
        found = on_white(np.asarray(upright.convert("RGBA")))
        return np.ascontiguousarray(found[..., :1]) if is_grey else found
    found = np.asarray(upright.convert("L" if is_grey else "RGB"))
    return found[..., None] if is_grey else found


def read_picture(path: Path) -> bytes:
    """Read a picture's file.

    Raises:
        UnreadableError: it is missing, no plain file, or too large.
    """
    try:
        if not path.is_file():
            raise UnreadableError("no plain file" if path.exists() else "no such file")
        if path.stat().st_size > MAX_BYTES:
            raise UnreadableError(f"more than {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableError(error.strerror or "cannot be read") from None


def fitted_fast(pixels: np.ndarray, channels: int, height: int, width: int, resize: str) -> np.ndarray:
    """Return `pixels.fitted` of a picture, its resizing done by Pillow, which gives the same bytes.

    The width is resized first, by a call of its own: some versions of Pillow begin with the height.
    """
    from PIL import Image

    found = with_channels(pixels, channels)
    inner = inner_size(found.shape[0], found.shape[1], height, width, resize)
    if inner != found.shape[:2]:
        image = Image.fromarray(found[..., 0] if channels == 1 else found)
        for size in ((inner[1], image.height), (inner[1], inner[0])):
            image = image.resize(size, Image.Resampling.BILINEAR)
        found = np.asarray(image)
    return placed(found.reshape(*inner, channels), height, width)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings about odd files: what cannot be used is counted and named instead."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextmanager
def _opened(data: bytes | Path) -> "Iterator[Image.Image]":
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(data, Path) and not data.is_file():
            raise UnreadableError("no such file")
        with Image.open(data if isinstance(data, Path) else io.BytesIO(data), formats=FORMATS) as image:
            if not (0 < image.width <= MAX_SIDE and 0 < image.height <= MAX_SIDE):
                raise UnreadableError(f"{image.width} x {image.height} pixels; a side has at most {MAX_SIDE:,}")
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read")
            yield image
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        raise UnreadableError(f"no picture of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's readers raise errors of any type
        raise UnreadableError(first_line(error, type(error).__name__)[:200]) from None


def _of_16_bits(values: np.ndarray) -> np.ndarray:
    """Keep the upper 8 of 16 bits, as Pillow does where a picture is coloured."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise UnreadableError("pixels that are floats, or of more than 16 bits; save it with 8 or 16")
    return eight_bits(values.astype(np.uint32))[..., None]
