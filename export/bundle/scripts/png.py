"""Reads PNGs without Pillow: 8 or 16 bits a channel, not interlaced. A part of run.py."""

import contextlib
import struct
import zlib

import numpy as np

from edgestill.pipeline.data.pixels import eight_bits, on_white

MAX_PIXELS, MAX_SIDE = 2**26, 2**15  # of any image
MAX_PNG_PIXELS, MAX_CHUNKS = 2**24, 2**17  # of a PNG read here


def read_png(data: bytes) -> np.ndarray:
    """Return uint8 [H, W, 1 or 3] of a PNG without interlacing, upright and on white."""
    chunks = png_chunks(data)
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth not in (8, 16) or interlace or colour not in (0, 2, 3, 4, 6) or (depth, colour) == (16, 3):
        raise ValueError(f"PNG with bit depth {depth}, colour type {colour}, interlace {interlace}")
    require_size(width, height)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    step = channels * depth // 8
    size = (width * step + 1) * height
    raw = zlib.decompressobj().decompress(chunks[b"IDAT"], size)
    if len(raw) != size:
        raise ValueError("PNG is truncated")
    pixels = unfilter(np.frombuffer(raw, np.uint8).reshape(height, width * step + 1), step)
    if depth == 16:
        pixels = np.ascontiguousarray(pixels).view(">u2")
    pixels = with_alpha(pixels, colour, chunks)
    pixels = eight_bits(pixels) if pixels.dtype != np.uint8 else pixels
    return turned(pixels if pixels.shape[2] in (1, 3) else on_white(pixels), orientation(chunks[b"eXIf"]))


def with_alpha(pixels: np.ndarray, colour: int, chunks: dict[bytes, bytes]) -> np.ndarray:
    """Look up a palette's colours, and add the alpha that the chunk tRNS gives (PNG specification, section 11.3.2)."""
    told, opaque = chunks[b"tRNS"], 255 if pixels.dtype == np.uint8 else 65535
    if colour == 3:
        colours = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
        alphas = np.frombuffer(told[: len(colours)].ljust(len(colours), b"\xff"), np.uint8)
        table: np.ndarray = np.column_stack([colours, alphas]) if told else colours
        found: np.ndarray = table[pixels[..., 0]]
        return found
    if not told or colour in (4, 6):
        return pixels
    clear = (pixels == np.frombuffer(told, ">u2", pixels.shape[2])).all(2, keepdims=True)
    return np.concatenate([pixels, np.where(clear, 0, opaque).astype(pixels.dtype)], axis=2)


def orientation(exif: bytes) -> int:
    """Return the tag Orientation of an EXIF block, 1 to 8; 1 where it is missing or damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    with contextlib.suppress(struct.error):
        if order:
            (start,) = struct.unpack_from(f"{order}I", exif, 4)
            (count,) = struct.unpack_from(f"{order}H", exif, start)
            for entry in range(start + 2, start + 2 + 12 * count, 12):
                tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
                if tag == 0x0112 and 1 <= value <= 8:
                    return int(value)
    return 1


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Turn stored pixels as a viewer shows them, by the tag Orientation (EXIF 2.32, section 4.6.4)."""
    pixels = pixels.swapaxes(0, 1) if turn >= 5 else pixels
    pixels = pixels[::-1] if turn in (3, 4, 7, 8) else pixels
    return pixels[:, ::-1] if turn in (2, 3, 6, 7) else pixels


def png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the joined data of the needed chunks, by kind."""
    found: dict[bytes, list[bytes]] = {kind: [] for kind in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT")}
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


def require_size(width: int, height: int) -> None:
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ValueError(f"{width}x{height} pixels; sides are 1 to {MAX_SIDE:,}, and together {MAX_PIXELS:,} at most")
