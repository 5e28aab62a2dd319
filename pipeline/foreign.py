"""Bounded reading of files that may come from anybody: plain files alone, and no larger than a limit.

All such files are read here. The caller sets the limit, above the size of any honest file of that kind.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from edgestill.pipeline.errors import DataError, EdgestillError

MAX_JSON_BYTES, MAX_VALUES = 2**26, 2**19  # a classifier of 20,000 classes has 130,000 values in its bundle.json
MAX_CONFIG_BYTES = 2**18
MAX_TABLE_BYTES = 2**26  # latencies, architectures

Refused = Callable[[str], EdgestillError]


def read_bounded(path: Path, limit: int, refused: Refused = DataError, follow: bool = True) -> bytes:
    """Return the bytes of a plain file of at most `limit` bytes.

    Args:
        refused: makes the error from its sentence.
        follow: read links too.

    Raises:
        EdgestillError: from `refused`: the path is missing, unreadable, no plain file, too large, or grows.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    flags |= 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags)  # not blocking: a pipe would wait for its writer
    except (OSError, ValueError) as error:  # a NUL in its name
        raise refused(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise refused(f"{path} is not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(status.st_size + 1) if status.st_size <= limit else b""
    if status.st_size > limit:
        raise refused(f"{path} has {status.st_size:,} bytes; at most {limit:,} are read")
    if len(data) > status.st_size:
        raise refused(f"{path} grew while it was read; wait until it is whole")
    return data


def read_json_bounded(path: Path, refused: Refused = DataError) -> bytes:
    """Read a JSON file as `read_bounded` does, and refuse it if it holds more than MAX_VALUES values.

    More would take too much memory to hold, and to report errors about.

    Raises:
        EdgestillError: also for too many values.
    """
    data = read_bounded(path, MAX_JSON_BYTES, refused)
    if has_many_values(data):
        raise refused(f"{path} holds more than {MAX_VALUES:,} values, which is more than a file of its kind has")
    return data


def has_many_values(data: bytes, most: int = MAX_VALUES) -> bool:
    """True if JSON has more values than `most`, by its commas and colons, before it is parsed."""
    return data.count(b",") + data.count(b":") > most


def read_text_bounded(path: Path, limit: int, refused: Refused = DataError) -> str:
    """Read UTF-8 text as `read_bounded` does, and drop a byte-order mark.

    Raises:
        EdgestillError: also for other encodings.
    """
    data = read_bounded(path, limit, refused)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise refused(f"{path} cannot be read: byte {error.start} is not UTF-8") from None
