"""`manifest.json`: the size and SHA-256 of every file of a bundle, in the one accepted spelling.

The manifest covers itself: it ends in the digest of its other content, and any other spelling of the same content is
refused, so that no byte of it can change unnoticed. That digest names the whole bundle. The manifest finds damage. A
rewrite of file and manifest together is found by a signature, or by the digest kept elsewhere
(docs/reference/bundle.md).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from edgestill.export.strict_json import parse_json
from edgestill.pipeline.errors import BundleError
from edgestill.pipeline.frozen import Frozen, first_problem

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MANIFEST_SCHEMA = "edgestill.manifest/1"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class FileEntry(Frozen):
    sha256: Sha256
    bytes: int = Field(ge=0)


class Manifest(Frozen):
    schema_name: Literal["edgestill.manifest/1"] = Field("edgestill.manifest/1", alias="schema")
    files: dict[str, FileEntry]
    digest: Sha256  # of the canonical bytes of the other fields


def manifest_bytes(files: Mapping[str, bytes]) -> bytes:
    """Return the manifest of a bundle's other files; equal files give equal bytes."""
    entries = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return _sealed({"schema": MANIFEST_SCHEMA, "files": entries})


def read_manifest(data: bytes) -> Manifest:
    """Parse and check a manifest.

    Raises:
        BundleError: not a manifest, of another version, or altered since it was written.
    """
    content = parse_json(data, MANIFEST)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != MANIFEST_SCHEMA:
        raise BundleError([f"{MANIFEST} is of the schema {str(schema)[:80]!r}; this edgestill reads {MANIFEST_SCHEMA}"])
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleError([f"{MANIFEST} is not a manifest: {first_problem(error)}"]) from None
    if _sealed({key: value for key, value in content.items() if key != "digest"}) != data:
        raise BundleError([f"{MANIFEST} was altered: it is not the text that its digest was made of"])
    return manifest


def _sealed(content: dict[str, Any]) -> bytes:
    digest = hashlib.sha256(canonical(content)).hexdigest()
    return canonical(content | {"digest": digest})


def canonical(content: dict[str, Any]) -> bytes:
    """Return the one accepted spelling of JSON: keys in order, one space of indentation, a last newline."""
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()
