"""Reads images from elsewhere in a child process, by the code of a bundle's run.py."""

import contextlib
import json

from edgestill.export.bundle.scripts.run_images import MAX_BYTES, UNREADABLE, decode, fit_to, reason_of

with contextlib.suppress(ImportError):  # once, before a child's forks
    from PIL import Image

    Image.preinit()

__all__ = ["MAX_BYTES", "fitted"]


def fitted(data: bytes, asked: str) -> bytes:
    """Read concatenated image files; return a line of JSON, then float32 pixels [N, C, H, W] in the asked shape.

    The JSON lists each image's original height and width. An unreadable file has the reason in their place, and no
    pixels.
    """
    given, place = json.loads(asked), 0
    told: list[list[int] | str] = []
    images = []
    for size in given["sizes"]:
        start, place = place, place + size
        try:
            pixels = decode(data[start:place])
            images.append(fit_to(pixels, given["shape"], given["resize"], "image").tobytes())
        except MemoryError:
            raise
        except UNREADABLE as error:
            told.append(reason_of(error))
            continue
        told.append(list(pixels.shape[:2]))
    return json.dumps(told).encode() + b"\n" + b"".join(images)
