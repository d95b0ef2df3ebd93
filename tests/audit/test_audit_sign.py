"""Signatures over the manifest: made and checked here and by OpenSSL, and keys that will not do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from made_audit import make_audit

from ingest.errors import RunError, UsageError
from search.audit.manifest import write_manifest
from search.audit.sign import check_signature, key_name, load_key, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def private(
    path: Path,
    key: Ed25519PrivateKey | Ed448PrivateKey = KEY,
    encryption: KeySerializationEncryption | None = None,
) -> Path:
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    )
    return path


def public(path: Path, key: Ed25519PrivateKey | Ed448PrivateKey = KEY) -> Path:
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.fixture
def report(tmp_path: Path) -> Path:
    out = make_audit(tmp_path / "report", 3, 0)
    write_manifest(out)
    return out


def test_signed_and_checked(report: Path, tmp_path: Path) -> None:
    assert sign(report, private(tmp_path / "key.pem")) == "56475aa75463474c"
    assert key_name(KEY.public_key()) == "56475aa75463474c"
    assert check_signature(report, public(tmp_path / "public.pem")) == ""
    before = (report / "manifest.sig").read_bytes()
    assert len(before) == 64
    sign(report, tmp_path / "key.pem")
    assert (report / "manifest.sig").read_bytes() == before


def test_what_does_not_hold(report: Path, tmp_path: Path) -> None:
    key = public(tmp_path / "public.pem")
    assert check_signature(report, key) == "the audit is not signed: it has no manifest.sig"
    (report / "manifest.sig").write_bytes(b"x" * 63)
    assert check_signature(report, key) == "manifest.sig is no signature: it must have 64 bytes"
    sign(report, private(tmp_path / "key.pem"))
    wrong = (
        "manifest.sig was not made with key {} over this manifest.json: another key, or a manifest "
        "that was changed since"
    )
    other = public(tmp_path / "other.pem", OTHER)
    assert check_signature(report, other) == wrong.format(key_name(OTHER.public_key()))
    manifest = report / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert check_signature(report, key) == wrong.format("56475aa75463474c")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_makes_the_keys_and_checks_the_signature(report: Path, tmp_path: Path) -> None:
    def openssl(*args: object) -> str:
        done = subprocess.run(
            ["openssl", *map(str, args)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    key, half = tmp_path / "key.pem", tmp_path / "public.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", key)
    openssl("pkey", "-in", key, "-pubout", "-out", half)
    sign(report, key)
    assert check_signature(report, half) == ""
    said = openssl(
        *("pkeyutl", "-verify", "-pubin", "-inkey", half, "-rawin"),
        *("-in", report / "manifest.json", "-sigfile", report / "manifest.sig"),
    )
    assert said == "Signature Verified Successfully\n"


def test_an_encrypted_key(report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = private(tmp_path / "key.pem", KEY, BestAvailableEncryption(b"secret"))
    monkeypatch.delenv("ATTRIB_SIGN_PASSWORD", raising=False)
    with pytest.raises(UsageError) as caught:
        sign(report, key)
    assert str(caught.value) == (f"{key} is encrypted: put its password into ATTRIB_SIGN_PASSWORD")
    monkeypatch.setenv("ATTRIB_SIGN_PASSWORD", "wrong")
    with pytest.raises(UsageError) as caught:
        sign(report, key)
    assert str(caught.value) == (
        f"{key} cannot be decrypted: the password in ATTRIB_SIGN_PASSWORD is wrong, or the file is "
        "damaged"
    )
    monkeypatch.setenv("ATTRIB_SIGN_PASSWORD", "secret")
    assert sign(report, key) == key_name(KEY.public_key())


def test_private_keys_that_will_not_do(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(UsageError) as caught:
            load_key(path)
        return str(caught.value).removeprefix(f"{path} ")

    path = tmp_path / "key.pem"
    assert refused(path) == f"cannot read the key {path}: No such file or directory"
    assert refused(public(path)) == "holds a public key; the private one is needed to sign"
    make = "`openssl genpkey -algorithm ed25519 -out key.pem` makes one"
    assert refused(private(path, Ed448PrivateKey.generate())) == (
        f"holds a private key of kind Ed448, not Ed25519; {make}"
    )
    for content in (b"", b"\xff\0", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", b"x" * 100_000):
        path.write_bytes(content)
        assert refused(path) == f"holds no private key in PEM form (PKCS #8); {make}"
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    with pytest.raises(UsageError, match="holds no private key in PEM form"):
        load_key(path)


def test_public_keys_that_will_not_do(report: Path, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(UsageError) as caught:
            check_signature(report, path)
        return str(caught.value).removeprefix(f"{path} ")

    path = tmp_path / "public.pem"
    make = "`openssl pkey -in key.pem -pubout -out public.pem` makes it"
    assert refused(private(path)) == (
        f"holds a private key; the public one is needed to check: {make}"
    )
    assert refused(public(path, Ed448PrivateKey.generate())) == (
        f"holds a public key of kind Ed448, not Ed25519; {make}"
    )
    path.write_bytes(b"nothing")
    assert refused(path) == f"holds no public key in PEM form; {make}"


def test_nothing_to_sign(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no finished audit: it has no manifest"):
        sign(tmp_path, private(tmp_path / "key.pem"))
    assert not (tmp_path / "manifest.sig").exists()
