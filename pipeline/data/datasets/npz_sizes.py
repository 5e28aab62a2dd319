"""Unpacked size of the arrays of an .npz file, read from its directory and headers before anything is unpacked."""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgestill.pipeline.errors import DataError
from edgestill.pipeline.free_memory import require_memory

MAX_MEMBERS = 1000
_SMALL, _MOST_TIMES = 2**28, 100  # bytes always allowed; ratio beyond them (digits on black have 10)
ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, OSError, ValueError,
              NotImplementedError, RuntimeError, OverflowError, KeyError, IndexError, SyntaxError,
              tokenize.TokenError)  # fmt: skip
_READ = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def require_plausible(path: Path, keys: Sequence[str]) -> None:
    """Refuse an archive with false sizes, too many members, an implausible ratio, or more data than free memory.

    Raises:
        DataError: the archive is refused.
        ZIP_ERRORS, RecursionError, SyntaxError: the file is no archive, or a header is invalid.
    """
    total = 0
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: entry for entry in archive.infolist()}
        if len(members) > MAX_MEMBERS:
            raise DataError(f"{path} holds {len(members):,} members; {MAX_MEMBERS:,} are read at most")
        for key in keys:
            entry = members.get(f"{key}.npy")
            if entry is None:
                continue
            declared = _declared(archive, entry)
            if declared is not None and declared != entry.file_size:
                raise DataError(
                    f"{path}: the header of {key} declares {declared:,} bytes and the archive {entry.file_size:,}; "
                    "fetch or save it again"
                )
            total += entry.file_size
    size = path.stat().st_size
    if total > max(_SMALL, _MOST_TIMES * size):
        raise DataError(
            f"{path} has {size:,} bytes and unpacks to {total:,}, {total // size} times as many, which no images do; "
            "save it uncompressed if this is what it should hold"
        )
    require_memory(2 * total, f"{path}, whose arrays have {total:,} bytes unpacked,")


def _declared(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int | None:
    """Bytes of a member, header included, as its header declares; None unless it is numbers (its reader refuses it)."""
    with archive.open(entry) as file:
        read = _READ.get(np.lib.format.read_magic(file))
        if read is None:
            return None
        try:
            shape, _, dtype = read(file)
        except MemoryError:  # Python's parser raises it for deep nesting
            raise ValueError("a header nests too deep") from None
        return None if dtype.hasobject else file.tell() + math.prod(shape) * dtype.itemsize
