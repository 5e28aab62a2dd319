"""Single gate to read a bundle or a model file from elsewhere.

Nothing of the file is run or interpreted before its bytes are hashed against the manifest, and nothing is handed out
unchecked: a caller opens the very bytes that were hashed, not a path that may have changed since.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from edgestill.export.bundle.consistency import inconsistencies
from edgestill.export.bundle.manifest import MANIFEST, SIGNATURE, Manifest, read_manifest
from edgestill.export.bundle.names import known_names
from edgestill.export.bundle.schema import BUNDLE, SCHEMA, Bundle, BundleModel
from edgestill.export.bundle.sign import Signed, check_signature
from edgestill.export.files import read_files
from edgestill.export.onnx.admission import check_onnx, check_onnx_bytes
from edgestill.export.onnx.interface import ends_of
from edgestill.export.strict_json import parse_json
from edgestill.pipeline.errors import BundleError
from edgestill.pipeline.frozen import first_problem

__all__ = ["OpenedBundle", "check_onnx", "check_onnx_bytes", "open_bundle"]


@dataclass
class OpenedBundle:
    """Bundle in memory, its files checked against its manifest. Use it in a `with` block."""

    path: Path  # as it was given
    bundle: Bundle
    manifest: Manifest
    files: Mapping[str, bytes]
    signed: Signed | None
    _folder: "tempfile.TemporaryDirectory[str] | None" = field(default=None, repr=False)

    def model(self, name: str | None = None) -> BundleModel:
        """Return a model by its format's name, or the default one.

        Raises:
            BundleError: there is none of that name.
        """
        name = name or self.bundle.default
        if name not in self.bundle.models:
            raise BundleError([f"this bundle has no model {name!r}; it has {', '.join(self.bundle.models)}"])
        return self.bundle.models[name]

    @property
    def trusted(self) -> bool:
        """True if it is signed by the key the reader asked for."""
        return self.signed is not None and self.signed.trusted

    def model_bytes(self, name: str | None = None) -> bytes:
        """Content of a model's first file."""
        return self.files[self.model(name).file]

    @property
    def folder(self) -> Path:
        """Folder with a private copy of the checked files, for readers of paths; deleted when the bundle is closed."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="edgestill-")
            for name, data in self.files.items():
                (Path(self._folder.name) / name).write_bytes(data)
        return Path(self._folder.name)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> "OpenedBundle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_bundle(path: Path, public_key: bytes | None = None, digest: str | None = None) -> OpenedBundle:
    """Read and check a whole bundle, from its folder or its zip.

    Args:
        public_key: PEM; if given, the bundle must be signed by it.
        digest: if given, the bundle's digest must equal it.

    Raises:
        BundleError: lists its problems; nothing of it was run.
    """
    files = read_files(path)
    manifest = _manifest(files)
    problems = altered(files, manifest)
    if digest is not None and digest.removeprefix("sha256:").lower() != manifest.digest:
        problems.append(f"this is another bundle: its digest is {manifest.digest}, not {digest}")
    if problems:
        raise BundleError(problems)
    signed = check_signature(files.get(SIGNATURE), files[MANIFEST], public_key)
    bundle = read_bundle(files)
    ends = {model.file: ends_of(bundle.task, model.interface) for model in bundle.models.values()}
    for name in files:
        if name.endswith(".onnx"):
            check_onnx_bytes(files[name], name, ends.get(name))
    return OpenedBundle(path, bundle, manifest, files, signed)


def _manifest(files: Mapping[str, bytes]) -> Manifest:
    if MANIFEST in files:
        return read_manifest(files[MANIFEST])
    if BUNDLE in files:
        schema = _schema(parse_json(files[BUNDLE], BUNDLE))
        if schema == "edgestill.bundle/1":
            raise BundleError([f"it is of the older schema {schema}, which has no manifest to check; {_REMAKE}"])
    raise BundleError([f"there is no {MANIFEST}, so nothing in it can be checked"])


_REMAKE = "`edgestill run` with the run's config.yaml makes one of this version"


def altered(files: Mapping[str, bytes], manifest: Manifest) -> list[str]:
    """List the differences between a bundle's files and its manifest, one sentence each."""
    problems = []
    for name, entry in manifest.files.items():
        if name not in files:
            problems.append(f"{name[:120]} is missing")
        elif len(files[name]) != entry.bytes:
            problems.append(f"{name} has {len(files[name]):,} bytes; the manifest says {entry.bytes:,}")
        elif hashlib.sha256(files[name]).hexdigest() != entry.sha256:
            problems.append(f"{name} was altered: its SHA-256 is not the manifest's")
    extra = sorted(files.keys() - manifest.files.keys() - {MANIFEST, SIGNATURE})
    problems += [f"{name} does not belong to it: the manifest does not list it" for name in extra]
    strange = sorted((files.keys() & manifest.files.keys()) - known_names())
    return problems + [f"{name} is no file of a bundle, whose files have fixed names" for name in strange]


def read_bundle(files: Mapping[str, bytes]) -> Bundle:
    """Read `bundle.json` and check it against the files beside it.

    Raises:
        BundleError: another version, not a bundle, or at odds with the files.
    """
    if BUNDLE not in files:
        raise BundleError([f"there is no {BUNDLE} in it"])
    content = parse_json(files[BUNDLE], BUNDLE)
    schema = _schema(content)
    if schema != SCHEMA:
        age = "older" if schema == "edgestill.bundle/1" else "unknown"
        raise BundleError([f"{BUNDLE} is of the {age} schema {schema[:80]!r}, not {SCHEMA}; {_REMAKE}"])
    try:
        bundle = Bundle.model_validate(content)
    except ValidationError as error:
        raise BundleError([f"{BUNDLE} does not keep to {SCHEMA}: {first_problem(error)}"]) from None
    problems = list(inconsistencies(bundle, files))
    if problems:
        raise BundleError(problems)
    return bundle


def _schema(content: Any) -> str:
    return str(content.get("schema")) if isinstance(content, dict) else "none"
