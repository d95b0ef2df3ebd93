"""A detached signature over an audit's manifest: Ed25519 (RFC 8032), by the library `cryptography`.

``manifest.sig`` holds the 64 bytes of the signature and nothing else, so that others can check it
without attrib: ``openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in manifest.json -sigfile
manifest.sig``.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ingest.errors import UsageError
from search.audit.manifest import MANIFEST, read_manifest
from search.folder import writing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = [
    "PASSWORD_VARIABLE",
    "SIGNATURE",
    "SIGNATURE_PARTIAL",
    "check_signature",
    "key_name",
    "load_key",
    "sign",
]

SIGNATURE = "manifest.sig"
SIGNATURE_PARTIAL = f".{SIGNATURE}.partial"  # what a killed `sign` may leave
PASSWORD_VARIABLE = "ATTRIB_SIGN_PASSWORD"

_LENGTH = 64
_MAX_KEY_BYTES = 1 << 16
_MAKE = "`openssl genpkey -algorithm ed25519 -out key.pem` makes one"
_MAKE_PUBLIC = "`openssl pkey -in key.pem -pubout -out public.pem` makes it"


def load_key(key_path: Path) -> Ed25519PrivateKey:
    """A private key from a PEM file (PKCS #8); its password is in ``ATTRIB_SIGN_PASSWORD``.

    Raises:
        UsageError: no such file, no key in it, of another kind, or a wrong or missing password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(key_path)
    if b"PUBLIC KEY-----" in content:
        raise UsageError(f"{key_path} holds a public key; the private one is needed to sign")
    is_encrypted = b"ENCRYPTED" in content
    password = os.environ.get(PASSWORD_VARIABLE, "") if is_encrypted else ""
    if is_encrypted and not password:
        raise UsageError(f"{key_path} is encrypted: put its password into {PASSWORD_VARIABLE}")
    try:
        key = load_pem_private_key(content, password.encode() or None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        if is_encrypted:
            raise UsageError(
                f"{key_path} cannot be decrypted: the password in {PASSWORD_VARIABLE} is wrong, or "
                "the file is damaged"
            ) from exc
        raise UsageError(f"{key_path} holds no private key in PEM form (PKCS #8); {_MAKE}") from exc
    if not isinstance(key, Ed25519PrivateKey):
        _refuse_kind(key_path, key, "private", _MAKE)
    return key


def sign(out: Path, key_path: Path) -> str:
    """Write `out`/manifest.sig over `out`/manifest.json as it stands; returns `key_name`.

    The same key and manifest give the same bytes.

    Raises:
        UsageError: see `load_key`.
        RunError: there is no manifest, or a damaged one.
        DataFolderError: the folder cannot be written.
    """
    key = load_key(key_path)
    read_manifest(out)
    signature = key.sign((out / MANIFEST).read_bytes())
    with writing(out):
        partial = out / SIGNATURE_PARTIAL
        partial.write_bytes(signature)
        partial.replace(out / SIGNATURE)
    return key_name(key.public_key())


def check_signature(out: Path, public_key_path: Path) -> str:
    """Check `out`/manifest.sig with a public key in PEM form (SubjectPublicKeyInfo).

    Returns:
        '' where the manifest was signed with the key's private half, else what is wrong.

    Raises:
        UsageError: no such key file, no key in it, or of another kind.
        RunError: there is no manifest.
    """
    from cryptography.exceptions import InvalidSignature

    key = _load_public(public_key_path)
    read_manifest(out)
    path = out / SIGNATURE
    try:
        signature = path.read_bytes() if path.stat().st_size == _LENGTH else b""
    except FileNotFoundError:
        return f"the audit is not signed: it has no {SIGNATURE}"
    except OSError as exc:
        return f"{SIGNATURE} cannot be read: {exc.strerror or exc}"
    if not signature:
        return f"{SIGNATURE} is no signature: it must have {_LENGTH} bytes"
    try:
        key.verify(signature, (out / MANIFEST).read_bytes())
    except InvalidSignature:
        return (
            f"{SIGNATURE} was not made with key {key_name(key)} over this {MANIFEST}: another key, "
            "or a manifest that was changed since"
        )
    return ""


def key_name(key: Ed25519PublicKey) -> str:
    """A short name of a key: the first 16 digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _load_public(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path)
    if b"PRIVATE KEY-----" in content:
        raise UsageError(
            f"{path} holds a private key; the public one is needed to check: {_MAKE_PUBLIC}"
        )
    try:
        key = load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise UsageError(f"{path} holds no public key in PEM form; {_MAKE_PUBLIC}") from exc
    if not isinstance(key, Ed25519PublicKey):
        _refuse_kind(path, key, "public", _MAKE_PUBLIC)
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as exc:
        raise UsageError(f"cannot read the key {path}: {exc.strerror or exc}") from exc


def _refuse_kind(path: Path, key: object, half: str, how: str) -> NoReturn:
    kind = type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey").strip("_")
    raise UsageError(f"{path} holds a {half} key of kind {kind}, not Ed25519; {how}")
