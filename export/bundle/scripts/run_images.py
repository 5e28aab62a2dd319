"""Prints the label of an image, with the model beside this file. Needs numpy and onnxruntime, nothing else.

    python run.py IMAGE_OR_FOLDER [IMAGE_OR_FOLDER ...]

Of a folder, every image is labelled; `-` reads paths from standard input. An unreadable image has a line on stderr, and
the exit code is then 1, or 2 if it is the only one. Reads PNG (8 bits a channel, not interlaced, up to 16 million
pixels), PGM and PPM (binary), .npy ([H, W] or [H, W, C], uint8 or floats in [0, 1]), and JPEG, GIF, BMP, TIFF, WebP and
every PNG where Pillow is installed, up to 67 million pixels. Other sizes are resized, with a note on stderr. The model
is the one that bundle.json calls the default, unless that is INT8 and this processor computes it otherwise than the
maker's: then it is fp32's, with a note on stderr.
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
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgestill.export.device.answers import open_default

HERE = Path(__file__).resolve().parent
UNREADABLE = (OSError, ValueError, IndexError, MemoryError, OverflowError, RecursionError, struct.error, zlib.error,
              tokenize.TokenError)  # fmt: skip
ENDINGS = {".png", ".pgm", ".ppm", ".npy", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
MAX_BYTES, MAX_PIXELS, MAX_SIDE = 2**28, 2**26, 2**15  # limits on an image's file, and on the image
MAX_PNG_PIXELS, MAX_CHUNKS = 2**24, 2**17  # limits on a PNG read without Pillow
MAX_MEMORY = 2**31  # bytes to read an image in


def main(paths: list[str]) -> int:
    if not paths:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    card = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    session = open_default(HERE, card)
    labels, (channels, height, width) = card["task"]["labels"], card["task"]["input_shape"]
    given = session.get_inputs()[0]
    asked, paths, failures = paths, [found for path in paths for found in files_of(path)], 0
    if not paths:
        print(shown(f"{', '.join(asked)}: there is no image in it"), file=sys.stderr)
        return 2
    for path in paths:
        try:
            with bounded_memory():
                image = fit_to(decode(read_file(Path(path))), channels, height, width, path)
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
    depth, interlace = data[24:25], data[28:29]
    area = int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    is_plain = depth == b"\x10" or (depth + interlace == b"\x08\x00" and area <= MAX_PNG_PIXELS)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and is_plain:
        pixels = read_png(data)  # refuses 16 bits, which Pillow would clip
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


def require_size(width: int, height: int) -> None:
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ValueError(f"{width}x{height} pixels; sides are 1 to {MAX_SIDE:,}, and together {MAX_PIXELS:,} at most")


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
                part = upright.crop((0, top, upright.width, min(top + 256, upright.height)))
                pixels[top : top + 256] = np.asarray(part.convert("RGB"))
            return pixels
    except Exception as error:  # Pillow's readers raise errors of any type, SyntaxError included
        raise ValueError(reason_of(error)) from None


def read_png(data: bytes) -> np.ndarray:
    """Return uint8 [H, W, C] of a PNG without interlacing; alpha is dropped."""
    chunks = png_chunks(data)
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth != 8 or interlace or colour not in (0, 2, 3, 4, 6):
        raise ValueError(f"PNG with bit depth {depth}, colour type {colour}, interlace {interlace}")
    require_size(width, height)
    step = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    size = (width * step + 1) * height
    raw = zlib.decompressobj().decompress(chunks[b"IDAT"], size)
    if len(raw) != size:
        raise ValueError("PNG is truncated")
    pixels = unfilter(np.frombuffer(raw, np.uint8).reshape(height, width * step + 1), step)
    if colour == 3:
        coloured: np.ndarray = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[pixels[..., 0]]
        return coloured
    return pixels[..., : {4: 1, 6: 3}.get(colour, step)]  # alpha is dropped


def png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the joined data of the needed chunks, by kind: IHDR, PLTE and IDAT."""
    found: dict[bytes, list[bytes]] = {b"IHDR": [], b"PLTE": [], b"IDAT": []}
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return {kind: b"".join(parts) for kind, parts in found.items()}
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind in found:
            found[kind].append(data[position + 8 : position + 8 + length])
        position += length + 12
    raise ValueError(f"PNG of more than {MAX_CHUNKS:,} chunks")


def unfilter(lines: np.ndarray, step: int) -> np.ndarray:
    """Undo PNG filters: lines [H, 1 + W * step] to uint8 [H, W, step], by the specification's section 9, modulo 256.

    A pixel depends on its left, upper and upper-left neighbours, so all pixels of an antidiagonal are computed at once.
    """
    kinds, height, width = lines[:, :1], len(lines), (lines.shape[1] - 1) // step
    if kinds.max() > 4:
        raise ValueError(f"damaged PNG: it names row filter {kinds.max()}, and 4 is the highest")
    padded = np.zeros((height + 1, width + 1, step), np.uint8)  # zeros to the left and above
    padded[1:, 1:] = lines[:, 1:].reshape(height, width, step)
    flat, below = padded.reshape(-1, step), width + 1
    for diagonal in range(height + width - 1):
        top, bottom = max(0, diagonal - width + 1), min(height, diagonal + 1)
        start = (top + 1) * below + diagonal - top + 1
        stop, along = start + (bottom - top - 1) * width + 1, width  # a line down, a pixel back
        left, up, corner = (flat[start - back : stop - back : along].astype(np.int16) for back in (1, below, below + 1))
        by_left, by_up = np.abs(up - corner), np.abs(left - corner)
        by_corner = np.abs(left + up - 2 * corner)
        paeth = np.where(by_left <= np.minimum(by_up, by_corner), left, np.where(by_up <= by_corner, up, corner))
        guess = np.choose(kinds[top:bottom], (np.int16(0), left, up, (left + up) >> 1, paeth))
        flat[start:stop:along] += guess.astype(np.uint8)
    return padded[1:, 1:]


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


def fit_to(pixels: np.ndarray, channels: int, height: int, width: int, path: str) -> np.ndarray:
    """Fit pixels from `decode` to the model: resize them, match its channels; return float32 [C, H, W] in [0, 1]."""
    if pixels.shape[2] != channels:
        pixels = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]  # alpha is dropped
    sizes, is_bytes = (height, width), pixels.dtype == np.uint8
    if pixels.shape[:2] != sizes:
        print(shown(f"{path}: resized from {pixels.shape[1]}x{pixels.shape[0]} to {width}x{height}"), file=sys.stderr)
    for axis in sorted((0, 1), key=lambda axis: sizes[axis] / pixels.shape[axis]):  # first the one that shrinks most
        if pixels.shape[axis] != sizes[axis]:
            pixels = resize(pixels.swapaxes(0, axis), sizes[axis]).swapaxes(0, axis)
    pixels = pixels.astype(np.float32) / np.float32(255 if is_bytes else 1)
    if pixels.shape[2] != channels:
        grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32) if pixels.shape[2] == 3 else pixels[..., 0]
        pixels = np.repeat(grey[..., None], channels, axis=2)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize along the first axis: a new pixel is the mean of the old ones it covers, or interpolated between two."""
    old = len(pixels)
    if size >= old:
        return interpolate(pixels, np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1))
    edges = np.linspace(0, old, size + 1)
    means = np.empty((size, *pixels.shape[1:]))
    for place in range(size):
        low, high = edges[place : place + 2]
        first, last = math.ceil(low), math.floor(high)
        total = pixels[first:last].sum(0, dtype=np.float64)
        total += (first - low) * pixels[math.floor(low)] + (high - last) * pixels[min(last, old - 1)]
        means[place] = total / (high - low)
    return means


def interpolate(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    low = np.minimum(positions.astype(int), len(values) - 1)
    high = np.minimum(low + 1, len(values) - 1)
    share = (positions - low).reshape(-1, *([1] * (values.ndim - 1)))
    mixed: np.ndarray = values[low] * (1 - share) + values[high] * share
    return mixed


def shown(text: str) -> str:
    """Escape unprintable characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason_of(error: BaseException) -> str:
    """Return an error's first line, at most 200 characters; its type's name if the line is empty."""
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


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
