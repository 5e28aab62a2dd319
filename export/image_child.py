"""What a child does with an image from elsewhere: reads it as a bundle's run.py does."""

import contextlib

from export._run import MAX_BYTES, UNREADABLE, decode, fit_to, reason_of
from pipeline.errors import DataError

with contextlib.suppress(ImportError):  # once, before a child's forks
    from PIL import Image

    Image.preinit()

__all__ = ["MAX_BYTES", "fitted"]


def fitted(data: bytes, shape: str) -> bytes:
    """Height and width as they were, four bytes each, then the float32 pixels [C, H, W] of the wanted shape.

    Raises:
        DataError: it is no image that is read here.
    """
    channels, height, width = map(int, shape.split())
    try:
        pixels = decode(data)
        image = fit_to(pixels, channels, height, width, "image")
    except MemoryError:
        raise
    except UNREADABLE as error:
        raise DataError(reason_of(error)) from None
    return b"".join(side.to_bytes(4, "little") for side in pixels.shape[:2]) + image.tobytes()
