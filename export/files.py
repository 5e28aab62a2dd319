"""Reads the bytes of a bundle's files from a folder or a zip, before any of their content is trusted.

A bundle is flat. Its zip must equal the output of `zip_bytes`: no compression, no folders, one order, one time. Any
other zip, such as one made by another tool, is refused rather than interpreted.
"""

import io
import os
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgestill.pipeline.errors import BundleError, first_line
from edgestill.pipeline.foreign import read_bounded

MAX_FILES = 100
MAX_TOTAL_BYTES = 2**30  # of all files together
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_END = 22  # bytes of a zip's last record when it has no comment
_ENTRY = 46 + 100  # bytes of a file's record in a zip's directory, at most


def read_files(path: Path) -> dict[str, bytes]:
    """Return every file of a bundle by name, in memory: the bytes checked are the bytes used.

    Raises:
        BundleError: nothing there; links, folders or devices in it; names leading elsewhere; too many files or bytes;
            a zip unlike those of `zip_bytes`.
    """
    if path.is_dir():
        return _from_folder(path)
    if not path.exists():
        raise BundleError([f"there is no bundle at {path}"])
    return _from_zip(read_regular(path, MAX_TOTAL_BYTES + MAX_FILES * 512))


def read_regular(path: Path, limit: int, follow: bool = True) -> bytes:
    """Return a plain file's bytes, `limit` at most.

    Raises:
        BundleError: missing, a device, a pipe, larger; a link, where links are not followed.
    """
    return read_bounded(path, limit, lambda problem: BundleError([problem]), follow)


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of the files; equal files give equal bytes, on any machine (hence no compression)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, on any system
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _from_folder(folder: Path) -> dict[str, bytes]:
    with os.scandir(folder) as entries:
        found = sorted((entry for entry, _ in zip(entries, range(MAX_FILES + 1), strict=False)), key=lambda e: e.name)
    problems = [problem for entry in found if (problem := _wrong_entry(entry)) is not None]
    problems += _too_much([entry.stat(follow_symlinks=False).st_size for entry in found])
    if problems:
        raise BundleError(problems)
    return {entry.name: read_regular(Path(entry.path), MAX_TOTAL_BYTES, follow=False) for entry in found}


def _wrong_entry(entry: "os.DirEntry[str]") -> str | None:
    if entry.is_symlink():
        return f"{entry.name!r} is a link; a bundle holds its files themselves"
    if not entry.is_file(follow_symlinks=False):
        return f"{entry.name!r} is not a plain file; a bundle is one flat folder of files"
    return wrong_name(entry.name)


def wrong_name(name: str) -> str | None:
    """Describe the problem with a file's name; None if the name is allowed."""
    parts = re.split(r"[/\\]", name)
    if len(parts) > 1 or ".." in parts:
        outside = name[:1] in "/\\" or ".." in parts or re.match(r"[A-Za-z]:", name)
        why = "leads out of the bundle" if outside else "lies in a folder; a bundle is flat"
        return f"{name[:120]!r} {why}"
    if not _NAME.match(name):
        return f"{name[:120]!r} is no file of a bundle (letters, digits, '.', '_' and '-', not hidden, 100 at most)"
    return None


def _too_much(sizes: list[int]) -> list[str]:
    if len(sizes) > MAX_FILES:
        return [f"it holds more than {MAX_FILES} files"]
    if sum(sizes) > MAX_TOTAL_BYTES:
        return [f"its files have {sum(sizes):,} bytes together; at most {MAX_TOTAL_BYTES:,} are read"]
    return []


def _from_zip(data: bytes) -> dict[str, bytes]:
    end = data[-_END:]
    if data[:2] != b"PK" or end[:4] != b"PK\x05\x06":
        raise BundleError(["it is neither a bundle's folder nor the zip of one; if it is a zip, it is damaged"])
    if int.from_bytes(end[10:12], "little") > MAX_FILES or int.from_bytes(end[12:16], "little") > MAX_FILES * _ENTRY:
        raise BundleError([f"the zip lists more than {MAX_FILES} files"])
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            problems = _wrong_zip(archive.infolist(), len(data))
            if problems:
                raise BundleError(problems)
            files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except _ZIP_ERRORS as error:
        raise BundleError([f"the zip is damaged: {first_line(error, type(error).__name__)}"]) from None
    if zip_bytes(files) != data:
        raise BundleError(["the zip is not the one that `edgestill bundle export` writes: its container was altered"])
    return files


_ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, OSError, EOFError,
               ValueError, OverflowError, MemoryError, KeyError, IndexError, struct.error)  # fmt: skip


def _wrong_zip(entries: list[zipfile.ZipInfo], size: int) -> list[str]:
    problems = []
    for entry in entries:
        name, mode = entry.filename[:120], entry.external_attr >> 16
        if stat.S_ISLNK(mode):
            problems.append(f"{name!r} is a link; a bundle holds its files themselves")
        elif (wrong := wrong_name(entry.orig_filename)) is not None:
            problems.append(wrong)
        elif entry.flag_bits & 1:
            problems.append(f"{name!r} is encrypted")
        elif entry.compress_type != zipfile.ZIP_STORED:
            ratio = entry.file_size / max(1, entry.compress_size)
            problems.append(f"{name!r} is compressed ({ratio:,.0f} times); a bundle's zip compresses nothing")
        elif entry.file_size != entry.compress_size:
            problems.append(f"{name!r} says that {entry.compress_size:,} bytes become {entry.file_size:,}")
    names = [entry.filename for entry in entries]
    problems += [f"{name!r} is in the zip twice" for name in sorted({n for n in names if names.count(n) > 1})]
    problems += _too_much([entry.file_size for entry in entries])
    if sum(entry.file_size for entry in entries) > size:
        problems.append(f"the zip has {size:,} bytes and says that it holds more; its files overlap")
    return problems[:10]
