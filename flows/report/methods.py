"""The report's section on the distillation methods: their figures, and their examples to show."""

import base64
import struct
import zlib
from typing import Any

import numpy as np

from edgestill.distill.methods.base import ExhibitItem
from edgestill.distill.result import DistillResult
from edgestill.pipeline.figures import significant

_GREY, _RGB = 0, 2  # PNG's colour types


def methods(distilled: DistillResult) -> dict[str, Any] | None:
    """Figures by method, and exhibits with their images as data URIs; None if no method has any."""
    if not distilled.measures and not distilled.exhibits:
        return None
    figures: dict[str, list[tuple[str, str]]] = {}
    for dotted, value in distilled.measures.items():
        method, _, name = dotted.partition(".")
        figures.setdefault(method, []).append((name.replace("_", " "), significant(value)))
    return {
        "figures": figures,
        "exhibits": [
            {
                "title": exhibit.title,
                "note": exhibit.note,
                "items": [
                    {"caption": item.caption, "text": item.text, "image": png_uri(item) if item.pixels else ""}
                    for item in exhibit.items
                ],
            }
            for exhibit in distilled.exhibits
        ],
    }


def png_uri(item: ExhibitItem) -> str:
    """An item's pixels as a PNG in a data URI: colour with three channels, else the first one in grey."""
    planes = np.array(item.pixels, dtype=np.uint8).reshape(item.shape)
    colour = len(planes) == 3
    _, height, width = planes.shape
    rows = (planes if colour else planes[:1]).transpose(1, 2, 0).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _RGB if colour else _GREY, 0, 0, 0)
    unfiltered = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(unfiltered, 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
