"""The manifest of an audit: the size and SHA-256 of each of its files.

It names the files that an audit is made of and no others, so that a payout or a note laid beside
them changes nothing. A signature is over its bytes (`search.audit.sign`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ingest.errors import RunError
from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES, REJECTS, SCHEMA, SUMMARY
from search.folder import writing

__all__ = [
    "MANIFEST",
    "Entry",
    "Manifest",
    "check_file",
    "damage",
    "file_sha256",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"

_NEEDED = (ATTRIBUTIONS, IMAGES, CREATORS, REJECTS, SUMMARY)
_FURTHER = ("report.html", "report-data")
_MAX_BYTES = 1 << 24
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """What the manifest says of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of an audit.

    Attributes:
        schema: of the audit's tables.
        files: by name, with '/' between folders.
        sha256: of the manifest itself, which stands for the whole audit.
    """

    schema: str
    files: Mapping[str, Entry]
    sha256: str


def write_manifest(out: Path) -> Manifest:
    """Write `out`/manifest.json; the same files give the same bytes.

    Raises:
        RunError: a table or the summary is missing, or a file cannot be read.
        DataFolderError: the folder cannot be written.
    """
    missing = [name for name in _NEEDED if not (out / name).is_file()]
    if missing:
        raise RunError(f"{out} is no finished audit: {', '.join(missing)} is missing")
    files = {}
    for name in sorted(_names(out)):
        path = out / name
        files[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    text = json.dumps({"schema": SCHEMA, "files": files}, indent=2, sort_keys=True)
    content = (text + "\n").encode()
    with writing(out):
        partial = out / f".{MANIFEST}.partial"
        partial.write_bytes(content)
        partial.replace(out / MANIFEST)
    return _parsed(content, out / MANIFEST)


def read_manifest(out: Path) -> Manifest:
    """The manifest of an audit; that its files are as it says is not looked at.

    Raises:
        RunError: there is none, it is damaged, or of an attrib that came later.
    """
    path = out / MANIFEST
    if not path.is_file():
        raise RunError(
            f"{out} is no finished audit: it has no {MANIFEST}; `attrib audit GALLERY --out {out}` "
            "makes one, and goes on where it stopped"
        )
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise RunError(f"cannot read {path}: {exc.strerror or exc}") from exc
    return _parsed(content, path)


def check_file(out: Path, name: str, entry: Entry) -> str:
    """What is wrong with a file, in words; '' where it is what the manifest says."""
    path = out / name
    try:
        if not path.is_file():
            return f"{name} is missing"
        if (size := path.stat().st_size) != entry.bytes:
            return f"{name} has {size:,} bytes, not the {entry.bytes:,} of the manifest"
        if file_sha256(path) != entry.sha256:
            return f"{name} was changed: its SHA-256 is not that of the manifest"
    except (OSError, RunError) as exc:
        return f"{name} cannot be read: {exc}"
    return ""


def damage(out: Path) -> list[str]:
    """What is missing of a finished audit, or of another size than its manifest says, in words.

    Contents are not read: `attrib audit verify` does.
    """
    try:
        manifest = read_manifest(out)
    except RunError:
        path = out / MANIFEST
        return [f"{MANIFEST} is {'damaged' if path.is_file() else 'missing'}"]
    found = []
    for name, entry in manifest.files.items():
        path = out / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif (size := path.stat().st_size) != entry.bytes:
            found.append(f"{name} has {size:,} bytes, not {entry.bytes:,}")
    return found


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, in bounded memory.

    Raises:
        RunError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as exc:
        raise RunError(f"cannot read {path}: {exc.strerror or exc}") from exc
    return digest.hexdigest()


def _names(out: Path) -> Iterator[str]:
    yield from _NEEDED
    for name in _FURTHER:
        path = out / name
        if path.is_file():
            yield name
        elif path.is_dir():
            inside = (found for found in path.rglob("*") if found.is_file())
            yield from (found.relative_to(out).as_posix() for found in inside)


def _parsed(content: bytes, path: Path) -> Manifest:
    damaged = RunError(f"{path} is damaged: run the audit again, or take another copy of it")
    if len(content) > _MAX_BYTES:
        raise damaged
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise damaged from exc
    if not isinstance(found, dict) or not isinstance(found.get("schema"), str):
        raise damaged
    if found["schema"] != SCHEMA:
        raise RunError(
            f"{path} is of schema {found['schema'][:40]!r}, and this attrib reads {SCHEMA}: use "
            "the attrib that wrote it"
        )
    files = found.get("files")
    if not isinstance(files, dict) or not all(_is_sound(*item) for item in files.items()):
        raise damaged
    if not set(_NEEDED) <= set(files):
        raise damaged
    entries = {name: Entry(entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    return Manifest(SCHEMA, entries, hashlib.sha256(content).hexdigest())


def _is_sound(name: str, entry: Any) -> bool:  # noqa: ANN401 (JSON)
    """Whether an entry is one, and stays inside the audit's folder."""
    inside = PurePosixPath(name)
    return (
        isinstance(entry, dict)
        and type(entry.get("bytes")) is int
        and isinstance(entry.get("sha256"), str)
        and bool(name)
        and not inside.is_absolute()
        and ".." not in inside.parts
        and "\\" not in name
        and "\0" not in name
    )
