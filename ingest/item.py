"""One image file of a source, found but not read yet, and how it is read."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from ingest.errors import RejectReason
from ingest.metadata import Metadata
from ingest.printable import printable
from ingest.record import ImageRecord, Reject
from ingest.sidecar import MAX_SIDECAR_BYTES, SIDECAR_SUFFIXES, parse_sidecar
from ingest.storage import FileState, Location, is_on_the_web, is_remote, shown

if TYPE_CHECKING:
    from upath import UPath

__all__ = ["DEFAULT_MAX_BYTES", "Item", "ItemSource", "item_at", "printable"]

DEFAULT_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a folder or a list, not read yet.

    Attributes:
        key: unique in the dataset, stable, always encodable to UTF-8.
        path: where to read it, on this machine or in a store.
        size: in bytes, 0 where the file is missing.
        mtime_ns: modification time, 0 where the file is missing or its store tells none.
        signature: changes whenever the image, a sidecar or its metadata row does.
        sidecars: the files beside it that describe it, in order of precedence.
        metadata: what a table says of it; sidecars win over it.
        origin: its place where that is not `path`: the URL, of a list of URLs.
    """

    key: str
    path: Location
    size: int
    mtime_ns: int
    signature: str
    sidecars: tuple[Location, ...] = ()
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

    def __init__(self, path: Location, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.path = path
        self.name = printable(shown(path))
        self.max_bytes = max_bytes

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """The images in a fixed order, streamed.

        Raises:
            SourceError: when there are none, or the source cannot be read.
        """

    def read(self, item: Item) -> ImageRecord | Reject:
        """Read an image and its metadata. Safe to call from many threads; never raises OSError.

        Raises:
            StorageError: its store refuses, or cannot be reached; that is not the image's fault.
        """
        where = printable(shown(item.path))
        data = _bytes_of(item, self.max_bytes)
        if isinstance(data, _Unusable):
            return Reject(item.key, where, data.reason, data.detail)
        if not data:
            return Reject(item.key, where, RejectReason.EMPTY)
        known = self.metadata(item)
        return ImageRecord(
            key=item.key,
            data=data,
            path=where,
            url=known.url,
            caption=known.caption,
            creator=known.creator,
            licence=known.licence,
            extra=known.extra,
        )

    @staticmethod
    def metadata(item: Item) -> Metadata:
        """What sidecars and list say of an image, which is not read for it.

        Raises:
            StorageError: as `read`.
        """
        known = Metadata()
        for sidecar in item.sidecars:
            known = known.over(_read_sidecar(sidecar))
        return known.over(item.metadata)


def item_at(
    path: Location,
    key: str,
    siblings: Collection[str] | Mapping[str, FileState] | None = None,
    metadata: Metadata | None = None,
) -> Item:
    """The item for a file, with its sidecars.

    Args:
        path: the image file; it may be missing, which is found out when it is read.
        key: the item's key, made encodable here.
        siblings: the names in its folder, with their states where a store gave them, if the caller
            has them at hand; the disk or the store is asked otherwise.
        metadata: its row in a table.
    """
    sidecars: list[Location] = []
    parts: list[object] = []
    # A web server may answer any address that it does not know with a page of its own.
    for suffix in () if is_on_the_web(path) else SIDECAR_SUFFIXES:
        sidecar = path.with_suffix(suffix) if path.name else path
        if siblings is not None and sidecar.name not in siblings:
            continue
        state = _state(sidecar, siblings)
        if state is not None:
            sidecars.append(sidecar)
            parts.append((suffix, state.size, state.version))
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
    found = _state(path, siblings) or _NO_STATE
    signature = found.signature
    if parts:
        signature += "." + hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
    return Item(
        key=printable(key),
        path=path,
        size=found.size,
        mtime_ns=found.mtime_ns,
        signature=signature,
        sidecars=tuple(sidecars),
        metadata=metadata or Metadata(),
    )


@dataclass(frozen=True, slots=True)
class _Unusable:
    reason: RejectReason
    detail: str = ""


def _bytes_of(item: Item, max_bytes: int) -> bytes | _Unusable:
    if is_remote(item.path):
        return _stored_bytes_of(item.path, item.size, max_bytes)
    try:
        found = item.path.stat()
        if not stat.S_ISREG(found.st_mode):
            # Opening a pipe would wait forever.
            return _Unusable(RejectReason.UNREADABLE, "not a regular file")
        if found.st_size > max_bytes:
            return _too_many(found.st_size, max_bytes)
        return item.path.read_bytes()
    except (OSError, ValueError) as exc:
        why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        return _Unusable(RejectReason.UNREADABLE, printable(why))


def _stored_bytes_of(at: UPath, size: int, max_bytes: int) -> bytes | _Unusable:
    """One request: that a file is too large is known from its listing, before it is fetched."""
    from ingest.stored import MissingError, read_bytes

    if size > max_bytes:
        return _too_many(size, max_bytes)
    try:
        data = read_bytes(at, max_bytes)
    except MissingError:
        return _Unusable(RejectReason.UNREADABLE, os.strerror(errno.ENOENT))
    if len(data) > max_bytes:
        return _Unusable(RejectReason.TOO_MANY_BYTES, f"the limit is {max_bytes}")
    return data


def _too_many(size: int, max_bytes: int) -> _Unusable:
    detail = f"{size} bytes, the limit is {max_bytes}"
    return _Unusable(RejectReason.TOO_MANY_BYTES, detail)


_NO_STATE = FileState(0, 0, 0)


def _state(
    path: Location, siblings: Collection[str] | Mapping[str, FileState] | None
) -> FileState | None:
    """The state of a regular file; None where there is none."""
    if is_remote(path):
        if isinstance(siblings, Mapping):
            return siblings.get(path.name)
        from ingest.stored import state_of

        return state_of(path) if path.name else None
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in a name from a list
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileState(found.st_size, found.st_mtime_ns, found.st_mtime_ns)


def _read_sidecar(path: Location) -> Metadata:
    if is_remote(path):
        from ingest.stored import MissingError, read_bytes

        try:
            data = read_bytes(path, MAX_SIDECAR_BYTES)
        except MissingError as exc:
            return _without(path.suffix, str(exc))
        return parse_sidecar(path.suffix, data)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIDECAR_BYTES + 1)
    except OSError as exc:
        return _without(path.suffix, str(exc.strerror))
    return parse_sidecar(path.suffix, data)


def _without(suffix: str, why: str) -> Metadata:
    return Metadata(extra={"metadata_error": f"{suffix} beside the image: {why}"})
