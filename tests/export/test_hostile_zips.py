"""Zips made to harm whoever unpacks them: nothing is written, and each is refused in one sentence."""

import os
import stat
import struct
import zipfile

import pytest
from hostile import one_sentence

from edgestill.export.bundle.verify import verify
from edgestill.export.files import zip_bytes


def entry(name, mode=stat.S_IFREG | 0o644, **changes):
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, mode << 16
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def repacked(files, path, extra=(), method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(entry(name), data, compress_type=method)
        for info, data in extra:
            archive.writestr(info, data, compress_type=method)


def patched(files, path, old, new):
    data = zip_bytes(files)
    assert old in data
    path.write_bytes(data.replace(old, new))


def overlapping(files, path):
    """Fifield's bomb in small: many entries of the directory point to one file's bytes."""
    data = zip_bytes({"a": bytes(100_000)})
    end = data.index(b"PK\x01\x02")
    record = data[end : data.index(b"PK\x05\x06")]
    records = b"".join(record[:46] + bytes([97 + n]) + record[47:] for n in range(20))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 20, 20, len(records), end, 0)
    path.write_bytes(data[:end] + records + tail)


def lying(files, path):
    """An entry that says it holds 2^31 bytes."""
    data = bytearray(zip_bytes(files))
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)


def crowded(files, path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3000):
            archive.writestr(f"f{number}", b"")


ZIPS = {
    "a name above the folder": lambda files, path: repacked(files, path, [(entry("../evil.py"), b"")]),
    "an absolute name": lambda files, path: repacked(files, path, [(entry("/etc/cron.d/evil"), b"")]),
    "a Windows drive": lambda files, path: repacked(files, path, [(entry("C:\\evil.py"), b"")]),
    "a backslash": lambda files, path: repacked(files, path, [(entry("..\\evil.py"), b"")]),
    "a folder": lambda files, path: repacked(files, path, [(entry("sub/evil.py"), b"")]),
    "a link": lambda files, path: repacked(files, path, [(entry("evil", stat.S_IFLNK | 0o777), b"/etc/passwd")]),
    "a file twice": lambda files, path: repacked(files, path, [(entry("run.py"), b"evil")]),
    "a bomb of 100 MB in 100 kB": lambda files, path: repacked(
        files, path, [(entry("bomb.bin"), bytes(10**8))], zipfile.ZIP_DEFLATED
    ),
    "bzip2": lambda files, path: repacked(files, path, method=zipfile.ZIP_BZIP2),
    "entries that overlap": overlapping,
    "an entry that says 2 GB": lying,
    "thousands of entries": crowded,
    "another name in the directory than before the data": lambda files, path: path.write_bytes(
        zip_bytes(files).replace(b"labels.txt", b"lobels.txt", 1)
    ),
    "a damaged checksum": lambda files, path: patched(files, path, files["labels.txt"], files["labels.txt"].upper()),
    "something before it": lambda files, path: path.write_bytes(b"#!/bin/sh\n" + zip_bytes(files)),
    "something after it": lambda files, path: path.write_bytes(zip_bytes(files) + b"more"),
    "a comment": lambda files, path: path.write_bytes(zip_bytes(files)[:-2] + b"\x04\x00more"),
    "half of it": lambda files, path: path.write_bytes(zip_bytes(files)[:-5000]),
    "a NUL in a name": lambda files, path: patched(files, path, b"labels.txt", b"labe\0s.txt"),
    "an encrypted entry": lambda files, path: path.write_bytes(
        zip_bytes(files).replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    ),
    "no zip at all": lambda files, path: path.write_bytes(b"PK, but not really"),
    "a sparse file of 100 GB": lambda files, path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 10**11),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_zip_is_refused(name, bundles, tmp_path):
    folder = bundles(3).folder
    before = set(tmp_path.rglob("*"))
    path = tmp_path / "bundle.zip"
    ZIPS[name]({p.name: p.read_bytes() for p in folder.iterdir()}, path)
    problems = verify(path).problems
    assert problems
    for problem in problems:
        one_sentence(problem)
    assert set(tmp_path.rglob("*")) == before | {path}
