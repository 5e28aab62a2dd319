"""Prints the label of an image, with the model beside this file. Needs numpy and onnxruntime, nothing else.

    python run.py IMAGE [IMAGE ...]

Reads PNG (8 bits a channel, not interlaced), PGM and PPM (binary), .npy ([H, W] or [H, W, C], uint8 or floats in
[0, 1]), and JPEG, GIF, BMP, TIFF, WebP and every PNG where Pillow is installed. Other sizes are resized, with a note on
stderr. The model is the one that bundle.json calls the default, unless that is INT8 and this processor computes it
otherwise than the maker's: then it is fp32's, with a note on stderr.
"""

import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

from export.device.answers import open_default

HERE = Path(__file__).resolve().parent
UNREADABLE = (OSError, ValueError, KeyError, IndexError, MemoryError, OverflowError, struct.error, zlib.error)
MAX_BYTES, MAX_PIXELS = 2**28, 10**8  # of an image's file, and of the image


def main(paths: list[str]) -> int:
    if not paths:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    card = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    session = open_default(HERE, card)
    labels = card["task"]["labels"]
    channels, height, width = card["task"]["input_shape"]
    given = session.get_inputs()[0]
    for path in paths:
        try:
            image = fit_to(read_image(Path(path)), channels, height, width, path)
        except UNREADABLE as error:
            print(shown(f"{path}: not an image that this script reads ({error})"), file=sys.stderr)
            return 2
        if given.type == "tensor(uint8)":  # the file scales it itself
            image = np.round(image * 255).astype(np.uint8).transpose(1, 2, 0)
        logits = session.run(["logits"], {given.name: image[None]})[0][0]
        label = labels[int(logits.argmax())]
        print(shown(label if len(paths) == 1 else f"{path}: {label}"))
    return 0


def read_image(path: Path) -> np.ndarray:
    """float32 [H, W, C] in [0, 1]."""
    if path.exists() and not path.is_file():
        raise ValueError("not a plain file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    data = path.read_bytes()
    depth, interlace = data[24:25], data[28:29]
    if data[:8] == b"\x89PNG\r\n\x1a\n" and (depth == b"\x10" or depth + interlace == b"\x08\x00"):
        pixels = read_png(data)  # which refuses 16 bits: Pillow would clip them
    elif data[:2] in (b"P5", b"P6"):
        pixels = read_netpbm(data)
    elif data[:6] == b"\x93NUMPY":
        pixels = np.load(io.BytesIO(data), allow_pickle=False)
    else:
        pixels = read_with_pillow(data)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.size == 0:
        raise ValueError(f"shape {list(pixels.shape)} is not [H, W] or [H, W, C]")
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255
    pixels = pixels.astype(np.float32)
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError("floating-point pixels must lie in [0, 1]")
    return pixels


def read_with_pillow(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3]. Of Pillow's formats only those that are pictures: it runs another program for PostScript."""
    try:
        from PIL import Image
    except ImportError:
        raise ValueError("install Pillow for this format, or convert it to an 8-bit PNG") from None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's readers raise what they meet, SyntaxError included
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def read_png(data: bytes) -> np.ndarray:
    """uint8 [H, W, C]; the PNG specification's section 9 filters, without interlacing."""
    found: dict[bytes, list[bytes]] = {}
    position = 8
    while position + 8 <= len(data):
        (length,), kind = struct.unpack(">I", data[position : position + 4]), data[position + 4 : position + 8]
        found.setdefault(kind, []).append(data[position + 8 : position + 8 + length])
        position += length + 12
    chunks = {kind: b"".join(parts) for kind, parts in found.items()}
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth != 8 or interlace or colour not in (0, 2, 3, 4, 6) or width * height > MAX_PIXELS:
        raise ValueError(f"PNG with bit depth {depth}, colour type {colour}, interlace {interlace}")
    step = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    size = (width * step + 1) * height
    raw = zlib.decompressobj().decompress(chunks[b"IDAT"], size)
    if len(raw) != size:
        raise ValueError("PNG is truncated")
    lines = np.frombuffer(raw, np.uint8).reshape(height, width * step + 1)
    rows = np.zeros((height, width * step), np.uint8)
    above = np.zeros(width * step, np.uint8)
    for y, line in enumerate(lines):
        above = rows[y] = unfilter(int(line[0]), line[1:], above, step)
    pixels = rows.reshape(height, width, step)
    if colour == 3:
        return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[pixels[..., 0]]
    return pixels[..., : {4: 1, 6: 3}.get(colour, step)]  # alpha is dropped


def unfilter(kind: int, line: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """A line of a PNG as uint8 [W * step], all sums modulo 256; the last two filters need the pixel before."""
    if kind in (0, 2):
        return line + above if kind else line
    if kind == 1:
        summed: np.ndarray = np.cumsum(line.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
        return summed
    if kind not in (3, 4):
        raise ValueError(f"PNG with filter {kind}")
    row, over = [0] * step, [0] * step + above.tolist()  # a zero pixel to the left; plain numbers are the faster ones
    for x, value in enumerate(line.tolist()):
        left, up, corner = row[x], over[x + step], over[x]
        if kind == 3:
            guess = (left + up) >> 1
        else:
            by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
            guess = left if by_left <= by_up and by_left <= by_corner else up if by_up <= by_corner else corner
        row.append((value + guess) & 255)
    return np.array(row[step:], np.uint8)


def read_netpbm(data: bytes) -> np.ndarray:
    """uint8 [H, W, C] of a binary PGM or PPM with 255 as its maximum."""
    fields: list[int] = []
    position = 2
    while len(fields) < 3:
        while data[position : position + 1].isspace():
            position += 1
        if data[position : position + 1] == b"#":
            position = data.index(b"\n", position)
            continue
        end = position
        while data[end : end + 1].isdigit():
            end += 1
        fields.append(int(data[position:end]))
        position = end
    width, height, maximum = fields
    if maximum != 255:
        raise ValueError(f"maximum {maximum} instead of 255")
    channels = 3 if data[:2] == b"P6" else 1
    return np.frombuffer(data, np.uint8, width * height * channels, position + 1).reshape(height, width, channels)


def fit_to(pixels: np.ndarray, channels: int, height: int, width: int, path: str) -> np.ndarray:
    """float32 [C, H, W] of the model's shape."""
    if pixels.shape[2] == 4 and channels == 3:
        pixels = pixels[..., :3]  # alpha is dropped
    if pixels.shape[2] != channels:
        grey = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32) if pixels.shape[2] >= 3 else pixels[..., 0]
        pixels = np.repeat(grey[..., None], channels, axis=2)
    if pixels.shape[:2] != (height, width):
        print(shown(f"{path}: resized from {pixels.shape[1]}x{pixels.shape[0]} to {width}x{height}"), file=sys.stderr)
        pixels = resize(resize(pixels, height).transpose(1, 0, 2), width).transpose(1, 0, 2)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Along the first axis: each new pixel is the mean of the old ones that it covers, or interpolated between two."""
    old = len(pixels)
    if size < old:
        edges = np.linspace(0, old, size + 1)
        total = np.concatenate([np.zeros((1, *pixels.shape[1:])), np.cumsum(pixels, axis=0, dtype=np.float64)])
        at = interpolate(total, edges)
        covered: np.ndarray = (at[1:] - at[:-1]) / (old / size)
        return covered
    return interpolate(pixels, np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1))


def interpolate(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    low = np.minimum(positions.astype(int), len(values) - 1)
    high = np.minimum(low + 1, len(values) - 1)
    share = (positions - low).reshape(-1, *([1] * (values.ndim - 1)))
    mixed: np.ndarray = values[low] * (1 - share) + values[high] * share
    return mixed


def shown(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
