"""Sealed files and journals, from which a later process resumes: each holds its owner and a digest of its contents.

The owner of a file is a run, its stage and the stage's inputs. A file of another owner, put there by hand or by a
mistake in a path, is refused, and so is one that changed since; neither is silently used.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.runs.checkpoint import write_atomic

_SEAL, _LENGTH = "seal", 16
_HEAD = b"edgestill sealed "


def write_sealed(path: Path, data: bytes, owner: str) -> None:
    """Write the file atomically, with its seal before the data."""
    write_atomic(path, _head(data, owner) + data)


def read_sealed(path: Path, owner: str) -> bytes | None:
    """Return the data that `write_sealed` was given; None where there is no file.

    Raises:
        RunDirError: the file is another owner's, or damaged; with the way out.
    """
    whole = _read(path)
    if whole is None:
        return None
    head, _, data = whole.partition(b"\n")
    if head + b"\n" != _head(data, owner):
        whose = head.split(b" ")[2:3]
        raise foreign(path) if whose and whose != [owner.encode()] and head.startswith(_HEAD) else damaged(path)
    return data


class Journal:
    """The JSON objects of a file, one a line, each sealed; a last line torn by a kill is dropped, from the file too.

    Raises:
        RunDirError: a line is another owner's, or damaged; with its number and the way out.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._path, self._owner = path, owner
        data = _read(path) or b""
        whole, newline, torn = data.rpartition(b"\n")
        self.entries = [self._opened(line, number) for number, line in enumerate(whole.split(b"\n"), 1) if newline]
        if torn:
            write_atomic(path, whole + newline)

    def append(self, entry: Mapping[str, Any], *, durable: bool = False) -> None:
        """Add an entry. It outlives this process once this returns; `durable`: a crash of the system too."""
        sealed = {**entry, _SEAL: self._seal(entry)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sealed) + "\n")
            if durable:
                file.flush()
                os.fsync(file.fileno())

    def _opened(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
            seal = entry.pop(_SEAL)
        except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
            raise damaged(self._path, f"line {number} of ") from None
        if seal != self._seal(entry):
            raise foreign(self._path, f"line {number} of ")
        return dict(entry)

    def _seal(self, entry: Any) -> str:
        return digest(self._owner, json.loads(json.dumps(entry)))[:_LENGTH]


def foreign(path: object, part: str = "") -> RunDirError:
    """Make the error for a file, or part of one, that is not this run's."""
    return RunDirError(
        f"{part}{path} belongs to another run, or to other data or settings than this stage's, or was altered; "
        "put this run's back, or delete it: `edgestill resume` then does again what it held"
    )


def damaged(path: Path, part: str = "", cause: str = "") -> RunDirError:
    """Make the error for a file, or part of one, that cannot be used."""
    why = f" ({cause})" if cause else ""
    return RunDirError(
        f"{part}{path} is damaged, or another version wrote it{why}; delete it: `edgestill resume` then does again "
        "what it held"
    )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirError(
            f"{path} cannot be read ({error.strerror}); mend that, or move it away: `edgestill resume` then does again "
            "what it held"
        ) from error


def _head(data: bytes, owner: str) -> bytes:
    return _HEAD + f"{owner} {hashlib.sha256(data).hexdigest()}\n".encode()
