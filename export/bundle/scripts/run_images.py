"""Prints the label of an image, with the model beside this file. Needs numpy and onnxruntime, nothing else.

    python run.py IMAGE_OR_FOLDER [IMAGE_OR_FOLDER ...]

Of a folder, every image is labelled; `-` reads paths from standard input. An unreadable image has a line on stderr, and
the exit code is then 1, or 2 if it is the only one. Reads PNG (8 or 16 bits a channel, not interlaced, up to 16 million
pixels), PGM and PPM (binary), .npy ([H, W] or [H, W, C], uint8 or floats in [0, 1]), and JPEG, GIF, BMP, TIFF, WebP and
every PNG where Pillow is installed, up to 67 million pixels. Pictures are turned as a viewer shows them, and what is
transparent is on white. Other sizes are resized as the training pictures were, with a note on stderr. The model is the
one that bundle.json calls the default, unless that is INT8 and this processor computes it otherwise than the maker's:
then it is fp32's, with a note on stderr.
"""

import contextlib
import io
import json
import math
import re
import struct
import sys
import tokenize
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgestill.export.bundle.scripts.png import MAX_PNG_PIXELS, read_png, require_size
from edgestill.export.device.answers import open_default
from edgestill.pipeline.data.pixels import DEFAULT_RESIZE, eight_bits, fitted, on_white

HERE = Path(__file__).resolve().parent
UNREADABLE = (OSError, ValueError, IndexError, MemoryError, OverflowError, RecursionError, struct.error, zlib.error,
              tokenize.TokenError)  # fmt: skip
ENDINGS = {".png", ".pgm", ".ppm", ".npy", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
MAX_BYTES = 2**28  # of an image's file
MAX_MEMORY = 2**31  # bytes to read an image in


def main(paths: list[str]) -> int:
    if not paths:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    card = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    session = open_default(HERE, card)
    labels = card["task"]["labels"]
    shape, resize = card["task"]["input_shape"], card["task"].get("resize") or DEFAULT_RESIZE
    given = session.get_inputs()[0]
    asked, paths, failures = paths, [found for path in paths for found in files_of(path)], 0
    if not paths:
        print(shown(f"{', '.join(asked)}: there is no image in it"), file=sys.stderr)
        return 2
    for path in paths:
        try:
            with bounded_memory():
                image = fit_to(decode(read_file(Path(path))), shape, resize, path)
        except UNREADABLE as error:
            print(shown(f"{path}: not an image that this script reads ({reason_of(error)})"), file=sys.stderr)
            failures += 1
            continue
        if given.type == "tensor(uint8)":  # the file scales it itself
            image = np.round(image * 255).astype(np.uint8).transpose(1, 2, 0)
        logits = session.run(["logits"], {given.name: image[None]})[0][0]
        label = labels[int(logits.argmax())]
        print(shown(label if len(paths) == 1 else f"{path}: {label}"))
    return 0 if not failures else 2 if len(paths) == 1 else 1


def files_of(path: str) -> list[str]:
    """Return the path, or for a folder the images in it, or for `-` the paths on standard input."""
    if path == "-":
        return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    with contextlib.suppress(OSError):  # a name too long is no folder
        if Path(path).is_dir():
            found = (file for file in Path(path).rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
            return sorted(map(str, found))
    return [path]


def read_image(path: Path) -> np.ndarray:
    """Return an image file's pixels, float32 [H, W, C] in [0, 1]."""
    pixels = decode(read_file(path))
    return pixels.astype(np.float32) / np.float32(255 if pixels.dtype == np.uint8 else 1)


def read_file(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ValueError("not a plain file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than the {MAX_BYTES:,} bytes that are read")
    return path.read_bytes()


def decode(data: bytes) -> np.ndarray:
    """Decode an image file's bytes to pixels [H, W, C]: uint8, or float32 in [0, 1]."""
    area = int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    is_plain = data[24:25] in (b"\x08", b"\x10") and data[28:29] == b"\x00" and area <= MAX_PNG_PIXELS
    if data[:8] == b"\x89PNG\r\n\x1a\n" and is_plain:
        pixels = read_png(data)
    elif data[:2] in (b"P5", b"P6"):
        pixels = read_netpbm(data)
    elif data[:6] == b"\x93NUMPY":
        pixels = read_npy(data)
    else:
        pixels = read_with_pillow(data)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.size == 0:
        raise ValueError(f"shape {str(list(pixels.shape))[:80]} is not [H, W] or [H, W, C]")
    require_size(pixels.shape[1], pixels.shape[0])
    if pixels.dtype == np.uint8:
        return pixels
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # refuses NaN too
        raise ValueError("floating-point pixels must lie in [0, 1]")
    return pixels.astype(np.float32)


def read_npy(data: bytes) -> np.ndarray:
    """Return the array in a .npy file; refuse other contents than numbers, and another size than the header's."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"a .npy file of version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(file)
    if dtype.kind not in "fuib":
        raise ValueError("a .npy file that holds something else than numbers")
    held = len(data) - file.tell()
    if len(shape) > 3 or min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"it declares the shape {str(list(shape))[:80]} of {dtype} and holds {held:,} bytes")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if by_column else "C")


def read_with_pillow(data: bytes) -> np.ndarray:
    """Return uint8 [H, W, 3], from picture formats only: for PostScript, Pillow would run another program."""
    try:
        from PIL import Image, ImageOps

        Image.MAX_IMAGE_PIXELS = None  # Pillow would warn before `require_size` refuses
    except ImportError:
        raise ValueError(
            "not a plain 8-bit PNG; install Pillow for this format, or convert it to an 8-bit PNG"
        ) from None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")) as image:
            require_size(image.width, image.height)
            image.load()
            upright = ImageOps.exif_transpose(image)  # as a viewer shows it: phones store pictures as the sensor lay
            pixels = np.empty((upright.height, upright.width, 3), np.uint8)
            for top in range(0, upright.height, 256):  # in strips, to avoid a second copy of the whole
                pixels[top : top + 256] = strip(upright.crop((0, top, upright.width, min(top + 256, upright.height))))
            return pixels
    except Exception as error:  # Pillow's readers raise errors of any type, SyntaxError included
        raise ValueError(reason_of(error)) from None


def strip(image: Any) -> np.ndarray:
    """Return a Pillow image as uint8 [H, W, 1 or 3], on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
            raise ValueError("pixels that are floats, or of more than 16 bits; save it with 8 or 16")
        return eight_bits(values)[..., None]
    if image.has_transparency_data:
        return on_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def read_netpbm(data: bytes) -> np.ndarray:
    """Return uint8 [H, W, C] of a binary PGM or PPM with 255 as its maximum."""
    found = re.match(rb"P[56]" + 3 * rb"(?:\s|#[^\n]*\n)+([0-9]{1,9})" + rb"\s", data[:4096])
    if found is None:
        raise ValueError("a netpbm header without width, height and maximum")
    width, height, maximum = map(int, found.groups())
    if maximum != 255:
        raise ValueError(f"maximum {maximum} instead of 255")
    require_size(width, height)
    channels = 3 if data[:2] == b"P6" else 1
    return np.frombuffer(data, np.uint8, width * height * channels, found.end()).reshape(height, width, channels)


def fit_to(pixels: np.ndarray, shape: Sequence[int], resize: str, path: str) -> np.ndarray:
    """Fit pixels from `decode` to the model; return float32 [C, H, W] in [0, 1].

    Args:
        shape: the model's channels, height and width.
    """
    channels, height, width = shape
    if pixels.shape[:2] != (height, width):
        print(shown(f"{path}: resized from {pixels.shape[1]}x{pixels.shape[0]} to {width}x{height}"), file=sys.stderr)
    if pixels.dtype != np.uint8 and pixels.shape == (height, width, channels):
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if pixels.dtype != np.uint8:
        pixels = np.floor(pixels * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    if pixels.shape[2] != channels and pixels.shape[2] in (2, 4):
        pixels = on_white(pixels)
    if pixels.shape[2] not in (1, 3, channels):
        raise ValueError(f"{pixels.shape[2]} channels; the model takes {channels}")
    fits = fitted(pixels, channels, height, width, resize)
    return np.ascontiguousarray(fits.transpose(2, 0, 1)) / np.float32(255)


def shown(text: str) -> str:
    """Escape unprintable characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason_of(error: BaseException) -> str:
    """Return an error's first line, at most 200 characters; its type's name if the line is empty."""
    line = re.sub(r" ?<[\w.]+ object at 0x\w+>", "", (str(error).splitlines() or [""])[0])  # differs from run to run
    return line[:200] or type(error).__name__


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Limit memory within the block, on Linux: taking more than the largest image needs raises MemoryError."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            taken = int(file.read().split()[0]) * resource.getpagesize()
        old = resource.getrlimit(resource.RLIMIT_AS)
        if old[0] == resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_AS, (taken + MAX_MEMORY, old[1]))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
