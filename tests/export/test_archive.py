"""A bundle as one file: the same bytes every time, and what other readers find in it."""

import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile

import pytest

from edgestill.export.bundle.archive import archive
from edgestill.export.files import read_files, zip_bytes


@pytest.fixture(scope="module")
def files(bundles):
    return read_files(bundles(3).folder)


@pytest.mark.parametrize("kind", ["zip", "oci-layout"])
def test_two_exports_are_equal_whatever_the_order_the_time_and_the_process(files, kind, tmp_path):
    first = archive(files, kind, "digits", "2025-01-01T00:00:00+00:00")
    backwards = dict(sorted(files.items(), reverse=True))
    assert archive(backwards, kind, "digits", "2025-01-01T00:00:00+00:00") == first
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    script = f"""
import sys, pathlib, hashlib
from edgestill.export.bundle.archive import archive
from edgestill.export.files import read_files
data = archive(read_files(pathlib.Path({str(tmp_path)!r})), {kind!r}, "digits", "2025-01-01T00:00:00+00:00")
print(hashlib.sha256(data).hexdigest())"""
    command = [sys.executable, "-c", script]
    environment = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": ":".join(sys.path)}
    other = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert other.stdout.strip() == hashlib.sha256(first).hexdigest()


def test_the_zip_opens_with_any_reader_and_holds_the_files(files, tmp_path):
    path = tmp_path / "b.zip"
    path.write_bytes(zip_bytes(files))
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == files
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 for entry in opened.infolist()} == {0o100644}
    assert read_files(path) == files


def test_the_oci_layout_keeps_to_the_specification_and_gives_the_files_back(files, tmp_path):
    """By hand from the image specification 1.1: layout, index, manifest, and every digest and size."""
    path = tmp_path / "b.tar"
    path.write_bytes(archive(files, "oci-layout", "digits", "2025-01-01T00:00:00+00:00"))
    with tarfile.open(path) as opened:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in opened} == {(0, 0, 0, "", 0o644)}
        opened.extractall(tmp_path / "layout", filter="data")
    layout = tmp_path / "layout"

    def blob(descriptor):
        method, digest = descriptor["digest"].split(":")
        data = (layout / "blobs" / method / digest).read_bytes()
        assert method == "sha256"
        assert hashlib.sha256(data).hexdigest() == digest
        assert len(data) == descriptor["size"]
        return data

    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    (described,) = index["manifests"]
    assert described["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    manifest = json.loads(blob(described))
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == described["mediaType"]
    assert manifest["artifactType"] == described["artifactType"] == "application/vnd.edgestill.bundle.v2"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert blob(manifest["config"]) == b"{}"
    found = {layer["annotations"]["org.opencontainers.image.title"]: blob(layer) for layer in manifest["layers"]}
    assert found == files
    listed = {d["digest"].split(":")[1] for d in (described, manifest["config"], *manifest["layers"])}
    assert {p.name for p in (layout / "blobs" / "sha256").iterdir()} == listed
