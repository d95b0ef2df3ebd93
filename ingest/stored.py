"""The files of a store: found, read, written and removed, each in one request or a few.

Everything here takes a `UPath` and raises `StorageError` with one line. Web servers are read only.
A URL that a person types may well lead to a private address (an S3 server of one's own); the rule
that only public ones are asked is for URLs that are found in data.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.errors import AttribError, StorageError
from ingest.storage import FileState, is_on_the_web, is_remote, is_url, location, shown
from ingest.stored_errors import MissingError, asked
from ingest.stored_file import StoredFile

if TYPE_CHECKING:
    from upath import UPath

__all__ = [
    "Folder",
    "Found",
    "MissingError",
    "exists",
    "find",
    "glob",
    "is_there",
    "names_in",
    "put_bytes",
    "put_file",
    "read_bytes",
    "remove",
    "scan",
    "state_of",
]

_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "Content-MD5", "Digest")
_TIMES = ("LastModified", "mtime", "updated", "Last-Modified", "created")


@dataclass(frozen=True, slots=True)
class Found:
    """A file or folder of a store.

    Attributes:
        at: where.
        state: of a file; None of a folder.
    """

    at: UPath
    state: FileState | None


@dataclass(frozen=True, slots=True)
class Folder:
    """What is directly in a folder, without hidden files.

    Attributes:
        files: by name.
        folders: names, sorted.
    """

    files: dict[str, FileState]
    folders: list[str]


def find(at: UPath) -> Found | None:
    """What is there: a file before a folder of the same name; None where nothing is.

    Raises:
        StorageError: no such bucket; or the store refuses, or cannot be reached.
    """
    try:
        info = asked(at, lambda: at.fs.info(at.path))
    except MissingError as exc:
        if str(exc).startswith("no such bucket"):
            raise
        _require_bucket(at)
        return None
    return Found(at, None if info.get("type") == "directory" else _state(info))


def state_of(at: UPath) -> FileState | None:
    """The state of a file; None where there is none."""
    with suppress(MissingError):
        found = find(at)
        return found.state if found else None
    return None


def exists(at: UPath) -> bool:
    """Whether there is such a file."""
    return state_of(at) is not None


def is_there(origin: str) -> bool:
    """Whether the file that the ledger knows by this place is still there.

    Of web addresses the answer is no: they may have come from a list of URLs, and what is found in
    data is not asked for here. So it is where a store cannot be asked.
    """
    if not is_url(origin):
        return Path(origin).exists()
    with suppress(AttribError):
        at = location(origin)
        return is_remote(at) and not is_on_the_web(at) and exists(at)
    return False


def scan(folder: UPath) -> Folder:
    """What is directly in a folder; one that is not there is empty, as stores have no folders."""
    files: dict[str, FileState] = {}
    folders: list[str] = []
    try:
        entries = asked(folder, lambda: folder.fs.ls(folder.path, detail=True))
    except MissingError as exc:
        if str(exc).startswith("no such bucket"):
            raise
        entries = []
    here = folder.path.rstrip("/")
    for entry in entries:
        whole = str(entry["name"])
        name = whole.rstrip("/").rpartition("/")[2]
        # The folder itself is listed where someone made an object of its name, with a slash.
        if not name or name.startswith(".") or whole.strip("/") == here.strip("/"):
            continue
        if entry.get("type") == "directory":
            folders.append(name)
        else:
            files[name] = _state(entry)
    return Folder(files, sorted(folders))


def glob(pattern: UPath) -> list[Found]:
    """What a wildcard pattern fits, by path."""
    entries: dict[str, dict[str, Any]] = asked(
        pattern, lambda: pattern.fs.glob(pattern.path, detail=True)
    )
    root = type(pattern)(f"{pattern.protocol}://", **pattern.storage_options)
    return [
        Found(root / path, None if info.get("type") == "directory" else _state(info))
        for path, info in sorted(entries.items())
    ]


def read_bytes(at: UPath, limit: int | None = None) -> bytes:
    """A file's bytes; with `limit`, at most one more than that.

    Raises:
        MissingError: there is no such file.
        StorageError: the store refuses, or cannot be reached.
    """
    if is_on_the_web(at):
        # Nothing says beforehand how much a web server is going to send.
        with StoredFile(at) as file:
            return file.read(-1 if limit is None else limit + 1)
    # s3fs would ask for the size first, to fetch parts of large files side by side.
    alone = {"max_concurrency": 1} if at.protocol == "s3" else {}
    data: bytes = asked(at, lambda: at.fs.cat_file(at.path, **alone))
    return data if limit is None else data[: limit + 1]


def put_bytes(data: bytes, at: UPath) -> None:
    """Write a file as a whole: it is there with all its bytes, or as it was before."""
    _require_writable(at)
    asked(at, lambda: at.fs.pipe_file(at.path, data))


def put_file(local: Path, at: UPath) -> None:
    """Upload a file as a whole: it is there with all its bytes, or as it was before."""
    _require_writable(at)
    asked(at, lambda: at.fs.put_file(str(local), at.path))


def remove(at: UPath) -> None:
    """Remove a file; there need not be one."""
    with suppress(MissingError):
        asked(at, lambda: at.fs.rm_file(at.path))


def names_in(folder: UPath) -> list[str]:
    """The names of the files directly in a folder, sorted; hidden ones are left out."""
    return sorted(scan(folder).files)


def _require_bucket(at: UPath) -> None:
    """A missing bucket is a mistake that deserves its own words: stores tell only some calls."""
    bucket, slash, _ = at.path.partition("/")
    if not is_on_the_web(at) and slash and at.protocol != "memory":
        try:
            asked(at, lambda: at.fs.ls(bucket, detail=False), tries=1)
        except MissingError as exc:
            raise MissingError(f"no such bucket: {at.protocol}://{bucket}") from exc
        except StorageError:
            return  # it need not be listable to be there


def _require_writable(at: UPath) -> None:
    if is_on_the_web(at):
        raise StorageError(f"{shown(at)}: a web server cannot be written to; name s3:// or gs://")


def _state(info: dict[str, Any]) -> FileState:
    size = int(info.get("size") or 0)
    mtime_ns = next((_in_ns(info[name]) for name in _TIMES if info.get(name)), 0)
    version = next((str(info[name]).strip('"') for name in _VERSIONS if info.get(name)), "")
    if not version:
        version = f"{mtime_ns:x}"
    elif len(version) > 40 or not version.isalnum():
        version = blake2b(version.encode(), digest_size=16).hexdigest()
    return FileState(size, version, mtime_ns)


def _in_ns(value: object) -> int:
    """Times as stores write them: objects, seconds, ISO or HTTP text; 0 where it is none."""
    parse: tuple[Callable[[str], datetime], ...] = (datetime.fromisoformat, parsedate_to_datetime)
    if isinstance(value, int | float):
        return int(value * 1e9)
    if not isinstance(value, datetime):
        for read in parse:
            with suppress(ValueError, TypeError):
                value = read(str(value))
                break
    return int(value.timestamp() * 1_000_000) * 1000 if isinstance(value, datetime) else 0
