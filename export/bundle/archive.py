"""Packs a bundle into one file: a zip, or an OCI image layout for any registry. Equal bundles give equal bytes."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

from edgestill.export.files import zip_bytes

ARTIFACT_TYPE = "application/vnd.edgestill.bundle.v2"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"  # the specification's, for an artifact without configuration
_TITLE = "org.opencontainers.image.title"
_MEDIA_TYPES = {
    ".json": "application/json",
    ".onnx": "application/vnd.onnx",
    ".md": "text/markdown",
    ".py": "text/x-python",
    ".txt": "text/plain",
    ".cdx.json": "application/vnd.cyclonedx+json",
}

FORMATS = ("zip", "oci-layout")


def archive(files: Mapping[str, bytes], kind: str, name: str, created: str) -> bytes:
    """Pack the files into one.

    Args:
        kind: of FORMATS.
        name: the bundle's, for an OCI layout's annotations.
        created: ISO 8601 time, for the same annotations.
    """
    return zip_bytes(files) if kind == "zip" else oci_layout(files, name, created)


def oci_layout(files: Mapping[str, bytes], name: str, created: str) -> bytes:
    """Return a tar of an OCI image layout (image-spec 1.1): a manifest with an `artifactType` and a layer per file."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    layers = [blob(files[file], _media_type(file)) | {"annotations": {_TITLE: file}} for file in sorted(files)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": blob(b"{}", _EMPTY_TYPE),
        "layers": layers,
        "annotations": {"org.opencontainers.image.created": created, _TITLE: name},
    }
    described = blob(_json(manifest), _MANIFEST_TYPE)
    named = {"artifactType": ARTIFACT_TYPE, "annotations": {"org.opencontainers.image.ref.name": name}}
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [described | named]}
    entries = blobs | {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    return _tar(entries)


def _media_type(file: str) -> str:
    fitting = [ending for ending in _MEDIA_TYPES if file.endswith(ending)]
    return _MEDIA_TYPES[max(fitting, key=len)] if fitting else "application/octet-stream"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)  # by default time, owner and group are 0, without names
            entry.size, entry.mode = len(files[name]), 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()
