"""A gallery of generated images, cut into parts: always the same parts of the same images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ingest.item import Item
from ingest.printable import printable
from ingest.source import ListingSource, Source, TarSource, UrlListSource
from ingest.storage import file_name, is_remote
from search.plan import Work

__all__ = ["Gallery", "Part", "Survey"]


@dataclass(frozen=True)
class Survey:
    """What a gallery holds, without having looked into an image.

    Attributes:
        digest: sha256 over the names, sizes, times and metadata of everything in it, in order.
        images: how many there are; None where a tar would have to be read to know.
        sizes: images of each part; 0 where that is not known.
    """

    digest: str
    images: int | None
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Some images of a source, or a whole tar.

    Attributes:
        number: 0-based, in order of the gallery.
        work: the images.
        source: which one of the gallery's they are in.
    """

    number: int
    work: Work
    source: Named


@dataclass(frozen=True)
class Named:
    """A source, and the names that its images have in the gallery.

    Attributes:
        label: of the source, for people.
        strip, prefix: a key of the source becomes one of the gallery by `prefix` in place of
            `strip`, so that two sources with images of the same names can be told apart.
    """

    source: Source
    label: str
    strip: str = ""
    prefix: str = ""

    def key(self, key: str) -> str:
        """The gallery's key of an image that the source calls `key`."""
        return self.prefix + key.removeprefix(self.strip)

    def path(self, key: str, path: str) -> str:
        """Where an image came from, for people; the same wherever the gallery lies on a disk."""
        source = self.source
        if isinstance(source, UrlListSource) or is_remote(source.path):
            return path
        if isinstance(source, TarSource):
            name = printable(file_name(source.path))
            member = path.partition(f"{name}#")[2]
            return f"{name}#{member}" if member else name
        return key if isinstance(source, ListingSource) else f"{self.label}/{key}"


@dataclass(frozen=True)
class Gallery:
    """The sources of an audit. `parts` and `survey` read their listings anew, streamed.

    Args:
        opened: the sources, see `ingest.source.open_sources`.
        part_size: images of a part that is no tar.
    """

    opened: Sequence[Source]
    part_size: int = 256
    sources: tuple[Named, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(_named(self.opened)))

    @property
    def name(self) -> str:
        """For people."""
        labels = list(dict.fromkeys(named.label for named in self.sources))
        more = len(labels) - 3
        return ", ".join(labels[:3]) + (f" and {more} more" if more > 0 else "")

    def parts(self) -> Iterator[Part]:
        """All parts in order; never more than one part of items is held in memory.

        Raises:
            SourceError: a source cannot be read, or has no images.
            StorageError: its store refuses, or cannot be reached.
        """
        number = 0
        for named in self.sources:
            source = named.source
            if isinstance(source, TarSource):
                yield Part(number, Work(source, None), named)
                number += 1
                continue
            items = source.items()
            while some := tuple(islice(items, self.part_size)):
                yield Part(number, Work(source, some), named)
                number += 1

    def survey(self) -> Survey:
        """Go through the listings once; raises as `parts`."""
        digest = hashlib.sha256()
        sizes: list[int] = []
        known = True
        for part in self.parts():
            source = part.work.source
            digest.update(repr((part.number, source.kind, part.source.label)).encode())
            if isinstance(source, TarSource):
                digest.update(source.signature.encode())
                known = False
            for item in part.work.items or ():
                digest.update(repr(_state(part.source, item)).encode())
            sizes.append(len(part.work.items or ()))
        return Survey(digest.hexdigest(), sum(sizes) if known else None, tuple(sizes))


def _state(named: Named, item: Item) -> tuple[object, ...]:
    state = (named.key(item.key), item.signature)
    if not isinstance(named.source, UrlListSource):
        return state  # what a table says is in the signature
    known = item.metadata
    told = (known.url, known.caption, known.creator, known.licence)
    return (*state, *told, *sorted(known.extra.items()))


def _named(sources: Sequence[Source]) -> Iterator[Named]:
    """Keys of tars begin with the tar's name; others get the source's name where there are several.

    Of sources of one name, the second is called ``name~2``.
    """
    several = sum(not isinstance(source, TarSource) for source in sources) > 1
    seen: Counter[str] = Counter()
    for source in sources:
        name = _label(source)
        seen[name] += 1
        label = name if seen[name] == 1 else f"{name}~{seen[name]}"
        if isinstance(source, TarSource):
            yield Named(source, label, name, label)
        else:
            yield Named(source, label, "", f"{label}/" if several else "")


def _label(source: Source) -> str:
    if isinstance(source, TarSource):
        return source.stem
    if is_remote(source.path):
        return printable(file_name(source.path)) or source.name
    return printable(Path(os.path.abspath(source.path)).name) or "gallery"  # noqa: PTH100
