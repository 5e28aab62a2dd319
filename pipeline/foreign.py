"""The one place where a file that may come from anybody is read: a plain one, and no more of it than is allowed.

What reads such a file names its limit, beyond what anybody's own file of the kind has.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import DataError, UserError

MAX_JSON_BYTES, MAX_VALUES = 2**26, 2**19  # a classifier of 20,000 classes has 130,000 values in its bundle.json
MAX_CONFIG_BYTES = 2**18
MAX_TABLE_BYTES = 2**26  # latencies, architectures

Refused = Callable[[str], UserError]


def read_bounded(path: Path, limit: int, refused: Refused = DataError, follow: bool = True) -> bytes:
    """A plain file's bytes, `limit` at most.

    Args:
        refused: makes the error out of its sentence.
        follow: whether a link is read too.

    Raises:
        UserError: `refused`, of what is missing, a device, a pipe, a folder, or larger.
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
    """As `read_bounded`, of a JSON file of no more values than a reader can be asked to hold and to complain of.

    Raises:
        UserError: also of more values.
    """
    data = read_bounded(path, MAX_JSON_BYTES, refused)
    if has_many_values(data):
        raise refused(f"{path} holds more than {MAX_VALUES:,} values, which is more than a file of its kind has")
    return data


def has_many_values(data: bytes, most: int = MAX_VALUES) -> bool:
    """Whether JSON has more values than this, told by its commas and colons before it is parsed."""
    return data.count(b",") + data.count(b":") > most


def read_text_bounded(path: Path, limit: int, refused: Refused = DataError) -> str:
    """As `read_bounded`, in UTF-8, without a byte-order mark.

    Raises:
        UserError: also of other encodings.
    """
    data = read_bounded(path, limit, refused)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise refused(f"{path} cannot be read: byte {error.start} is not UTF-8") from None
