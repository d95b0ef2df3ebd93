"""Reading the generated images of an audit again, by the keys that they have in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ingest.decode import DecodeLimits
from ingest.download_settings import DownloadSettings
from ingest.item import Item
from ingest.record import ImageRecord, Reject
from ingest.source import TarSource, UrlListSource, open_sources
from ingest.tar import is_tar_name
from search.audit.finished import read_table
from search.audit.gallery import Gallery, Part
from search.audit.tables import IMAGES, REJECTS

__all__ = ["GalleryAgain", "gallery_told"]


@dataclass(frozen=True)
class GalleryAgain:
    """A gallery that was audited, to be read again.

    Attributes:
        names: as they were given to the audit, see `ingest.source.open_sources`.
        limits: what an image could be.
        download: how the images of lists of URLs are fetched.
        told_by: the audit's own paths told the names: nobody gave them.
    """

    names: Sequence[str]
    limits: DecodeLimits
    download: DownloadSettings | None = None
    told_by: bool = False

    def parts(self) -> Iterator[Part]:
        """The gallery's parts, as `Gallery.parts`; what is downloaded ends with them.

        Raises:
            RunError: the gallery cannot be read.
        """
        with ExitStack() as stack:
            opened = open_sources(list(self.names), self.limits.max_bytes, self.download)
            for source in opened:
                if isinstance(source, UrlListSource):
                    stack.callback(source.close)
            yield from Gallery(opened).parts()

    def wanted(self, keys: Collection[str]) -> Iterator[tuple[str, ImageRecord | Reject]]:
        """Some images, by the gallery's keys; the others are not read; raises as `parts`."""
        for part in self.parts():
            chosen = [item for item in part.work.items or () if part.source.key(item.key) in keys]
            for key, record in records_of(part, chosen):
                if key in keys:
                    yield key, record


def records_of(part: Part, items: Sequence[Item]) -> Iterator[tuple[str, ImageRecord | Reject]]:
    """Images of a part by the gallery's keys: all of a tar, else `items`.

    Raises:
        SourceError: a tar is damaged; after what is before the damage.
        StorageError: its store refuses, or cannot be reached.
    """
    named, source = part.source, part.source.source
    if isinstance(source, TarSource):
        for record in source.records():
            yield named.key(record.key), record
    elif isinstance(source, UrlListSource):
        for item, record in zip(items, source.records(tuple(items)), strict=True):
            yield named.key(item.key), record
    else:
        for item in items:
            yield named.key(item.key), source.read(item)


def gallery_told(out: Path) -> tuple[str, ...]:
    """The folder or the tars that an audit's paths name, where they lie in the working directory.

    An audit names no place on a disk, so this can be another gallery of that name: whoever reads it
    compares the files. () where it is not there, or was several folders, a list, or elsewhere.

    Raises:
        RunError: a table is damaged.
    """
    names: dict[str, None] = {}
    for table in (IMAGES, REJECTS):
        columns = read_table(out, table, ["image", "path"])
        keys, paths = (columns.column(name).to_pylist() for name in ("image", "path"))
        for key, path in zip(keys, paths, strict=True):
            tar, member, _ = path.partition("#")
            if path.endswith(f"/{key}"):
                names[path.removesuffix(f"/{key}")] = None
            elif (member and is_tar_name(tar)) or is_tar_name(path):
                names[tar] = None
            else:
                return ()
    folders = [name for name in names if not is_tar_name(name)]
    is_one = len(folders) == (0 if len(folders) < len(names) else 1)
    is_here = all(
        Path(name).name == name and name not in ("", "..") and Path(name).exists() for name in names
    )
    return tuple(names) if names and is_one and is_here else ()
