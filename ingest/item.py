"""One image file of a source, found but not read yet, and how it is read."""

from __future__ import annotations

import hashlib
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from ingest.errors import RejectReason
from ingest.metadata import Metadata
from ingest.record import ImageRecord, Reject
from ingest.sidecar import MAX_SIDECAR_BYTES, SIDECAR_SUFFIXES, parse_sidecar

__all__ = ["DEFAULT_MAX_BYTES", "Item", "ItemSource", "item_at", "printable"]

DEFAULT_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a folder or a list, not read yet.

    Attributes:
        key: unique in the dataset, stable, always encodable to UTF-8.
        path: where to read it.
        size: in bytes, 0 where the file is missing.
        mtime_ns: modification time, 0 where the file is missing.
        signature: changes whenever the image, a sidecar or its metadata row does.
        sidecars: the files beside it that describe it, in order of precedence.
        metadata: what a table says of it; sidecars win over it.
        origin: its place where that is not `path`: the URL, of a list of URLs.
    """

    key: str
    path: Path
    size: int
    mtime_ns: int
    signature: str
    sidecars: tuple[Path, ...] = ()
    metadata: Metadata = field(default_factory=Metadata)
    origin: str = ""


class ItemSource(ABC):
    """A source whose images are files of their own: a folder, a list, a single image.

    Attributes:
        name: for people.
        kind: ``items``, or ``urls`` where they have to be downloaded.
        max_bytes: larger files are rejected unread.
    """

    kind: ClassVar[Literal["items", "urls"]] = "items"

    def __init__(self, path: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.path = path
        self.name = printable(str(path))
        self.max_bytes = max_bytes

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """The images in a fixed order, streamed.

        Raises:
            SourceError: when there are none, or the source cannot be read.
        """

    def read(self, item: Item) -> ImageRecord | Reject:
        """Read an image and its metadata. Safe to call from many threads; never raises OSError."""
        shown = printable(str(item.path))
        try:
            found = item.path.stat()
            if not stat.S_ISREG(found.st_mode):
                # Opening a pipe would wait forever.
                return Reject(item.key, shown, RejectReason.UNREADABLE, "not a regular file")
            if found.st_size > self.max_bytes:
                detail = f"{found.st_size} bytes, the limit is {self.max_bytes}"
                return Reject(item.key, shown, RejectReason.TOO_MANY_BYTES, detail)
            data = item.path.read_bytes()
        except (OSError, ValueError) as exc:
            why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            return Reject(item.key, shown, RejectReason.UNREADABLE, printable(why))
        if not data:
            return Reject(item.key, shown, RejectReason.EMPTY)
        known = Metadata()
        for sidecar in item.sidecars:
            known = known.over(_read_sidecar(sidecar))
        known = known.over(item.metadata)
        return ImageRecord(
            key=item.key,
            data=data,
            path=shown,
            url=known.url,
            caption=known.caption,
            creator=known.creator,
            licence=known.licence,
            extra=known.extra,
        )


def item_at(
    path: Path,
    key: str,
    siblings: Iterable[str] | None = None,
    metadata: Metadata | None = None,
) -> Item:
    """The item for a file, with its sidecars.

    Args:
        path: the image file; it may be missing, which is found out when it is read.
        key: the item's key, made encodable here.
        siblings: the names in its folder, where the caller has them at hand; the disk is asked
            otherwise.
        metadata: its row in a table.
    """
    sidecars = []
    parts: list[object] = []
    for suffix in SIDECAR_SUFFIXES:
        sidecar = path.with_suffix(suffix) if path.name else path
        if siblings is not None and sidecar.name not in siblings:
            continue
        state = _state(sidecar)
        if state != (0, 0):
            sidecars.append(sidecar)
            parts.append((suffix, *state))
    if metadata is not None:
        parts.append(
            (
                metadata.url,
                metadata.caption,
                metadata.creator,
                metadata.licence,
                sorted(metadata.extra.items(), key=lambda pair: pair[0]),
            )
        )
    size, mtime_ns = _state(path)
    signature = f"{size:x}.{mtime_ns:x}"
    if parts:
        signature += "." + hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
    return Item(
        key=printable(key),
        path=path,
        size=size,
        mtime_ns=mtime_ns,
        signature=signature,
        sidecars=tuple(sidecars),
        metadata=metadata or Metadata(),
    )


def printable(name: str) -> str:
    r"""A file name as text that any store takes: bytes that are not UTF-8 become ``\xff``.

    Python holds such bytes as lone surrogates, which UTF-8 cannot hold; NUL separates the parts of
    an identity and becomes ``\x00``.
    """
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = name.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")


def _state(path: Path) -> tuple[int, int]:
    """(size in bytes, modification time in ns) of a regular file; (0, 0) where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in a name from a list
        return 0, 0
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (0, 0)


def _read_sidecar(path: Path) -> Metadata:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIDECAR_BYTES + 1)
    except OSError as exc:
        return Metadata(extra={"metadata_error": f"{path.suffix} beside the image: {exc.strerror}"})
    return parse_sidecar(path.suffix, data)
