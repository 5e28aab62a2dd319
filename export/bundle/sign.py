"""Optional ed25519 signature over a bundle's manifest, as `manifest.sig`; keys are PEM files."""

import base64
import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field, ValidationError

from edgestill.export.bundle.manifest import SIGNATURE, canonical
from edgestill.export.strict_json import parse_json
from edgestill.pipeline.errors import BundleError, ConfigError, first_line
from edgestill.pipeline.frozen import Frozen, first_problem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_SCHEMA = "edgestill.signature/1"


class SignatureFile(Frozen):
    schema_name: Literal["edgestill.signature/1"] = Field("edgestill.signature/1", alias="schema")
    public_key: str  # 32 bytes in base64
    signature: str  # of the manifest's bytes; 64 bytes in base64


class Signed(NamedTuple):
    key: str  # fingerprint: the first 16 hexadecimal digits of the public key's SHA-256
    trusted: bool  # the key is the required one


def make_keys() -> tuple[bytes, bytes]:
    """Generate a private and a public key, as PEM."""
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    return private, key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)


def sign_manifest(manifest: bytes, private_key: bytes) -> tuple[bytes, str]:
    """Sign a manifest; return the signature file and the key's fingerprint.

    Raises:
        ConfigError: not an ed25519 private key in PEM, or one behind a password.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            [
                f"the key file cannot be read ({_line(error)}); it must hold an ed25519 private key in PEM, without a "
                "password, as `edgestill keygen` makes it"
            ]
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError([f"the key is a {type(key).__name__}; signatures here are ed25519 (`edgestill keygen`)"])
    public = key.public_key().public_bytes_raw()
    content = {"schema": SIGNATURE_SCHEMA, "public_key": _encoded(public), "signature": _encoded(key.sign(manifest))}
    return canonical(content), fingerprint(public)


def check_signature(signature: bytes | None, manifest: bytes, public_key: bytes | None) -> Signed | None:
    """Check the manifest's signature and return its signer; None if it is unsigned and no key is required.

    Raises:
        BundleError: the signature is damaged, does not belong to this manifest, or is missing or by another key than
            the required one.
        ConfigError: `public_key` is no ed25519 public key.
    """
    wanted = None if public_key is None else _public(public_key).public_bytes_raw()
    if signature is None:
        if wanted is not None:
            raise BundleError([f"it is not signed; the key {fingerprint(wanted)} was asked for"])
        return None
    key, made = _read(signature)
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(made, manifest)
    except (InvalidSignature, ValueError):
        raise BundleError(
            [f"{SIGNATURE} does not sign this manifest: one of the two was changed, or is another bundle's"]
        ) from None
    if wanted is not None and key != wanted:
        raise BundleError([f"it is signed by the key {fingerprint(key)}, not by {fingerprint(wanted)}"])
    return Signed(fingerprint(key), trusted=wanted is not None)


def fingerprint(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]


def _public(pem: bytes) -> "Ed25519PublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError([f"this is no public key in PEM ({_line(error)})"]) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError([f"the key is a {type(key).__name__}; signatures here are ed25519 (`edgestill keygen`)"])
    return key


def _read(data: bytes) -> tuple[bytes, bytes]:
    content = parse_json(data, SIGNATURE)
    try:
        file = SignatureFile.model_validate(content)
    except ValidationError as error:
        raise BundleError([f"{SIGNATURE} is not a signature that is read here: {first_problem(error)}"]) from None
    parts = []
    for text, size in ((file.public_key, 32), (file.signature, 64)):
        try:
            raw = base64.b64decode(text, validate=True)
        except ValueError:
            raw = b""
        if len(raw) != size or _encoded(raw) != text:  # base64 has several spellings of the same bytes
            raise BundleError([f"{SIGNATURE} was altered: it is not {size} bytes in base64"])
        parts.append(raw)
    if canonical(content) != data:
        raise BundleError([f"{SIGNATURE} was altered: it is not spelt as it is written"])
    return parts[0], parts[1]


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _line(error: BaseException) -> str:
    return first_line(error, type(error).__name__)[:120]
