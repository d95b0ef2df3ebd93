"""Lists of URLs, as LAION publishes its data: a row an image, which has to be downloaded."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import urlsplit

from ingest.download_errors import NO_ANSWER, LeftAloneError, TransientError
from ingest.download_settings import DownloadSettings
from ingest.errors import ImageError, SourceError
from ingest.item import DEFAULT_MAX_BYTES, Item, ItemSource, printable
from ingest.metadata import Metadata
from ingest.record import ImageRecord, Reject
from ingest.storage import Location, file_name
from ingest.table import open_table, text_lines

if TYPE_CHECKING:
    from ingest.download import Downloader, Outcome
    from ingest.download_address import Resolver
    from ingest.download_keep import KeptImages

__all__ = ["UrlListSource", "key_of_url"]

_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_OFFLINE_HOSTS = 16
"""When none of at least so many hosts could be connected to, it is our network that is down."""


def key_of_url(url: str) -> str:
    """The key of an image known by its URL: the first 32 hexadecimal digits of the URL's SHA-256.

    It depends on nothing but the URL as listed, so the same image has the same key in every edition
    and every part of a list, whatever its row; and it is short, and fits file names.
    """
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class UrlListSource(ItemSource):
    """Images that a list names by URL: a line each in a .txt, a row each in a .parquet or .csv.

    An item's `origin` is its URL. Its signature is the SHA-256 that the list gives for the bytes
    (column ``sha256``), which are held to it, or else a constant: that a caption changed is no
    reason to download again, and of two rows with one URL either one will do.

    Args:
        path: the list. Downloading items that are known does not read it.
        max_bytes: of one image; a larger one is given up while it comes in.
        column: holds the URLs; None for a .txt.
        settings: how to download.
        resolver: from host names to IP addresses; the system's, unless given.
    """

    kind: ClassVar[Literal["items", "urls"]] = "urls"

    def __init__(
        self,
        path: Location,
        max_bytes: int = DEFAULT_MAX_BYTES,
        column: str | None = None,
        settings: DownloadSettings | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        super().__init__(path, max_bytes)
        self.column = column
        self.settings = settings or DownloadSettings()
        self._resolver = resolver
        self._downloader: Downloader | None = None

    def items(self) -> Iterator[Item]:
        """As `ItemSource.items`."""
        found = False
        for number, (url, metadata) in enumerate(self._rows(), start=1):
            found = True
            sha256 = _sha256_of(metadata)
            yield Item(
                key=key_of_url(url) if url else f"{printable(file_name(self.path))}#row{number}",
                path=self.path,
                size=0,
                mtime_ns=0,
                signature=sha256 or "url",
                metadata=replace(metadata, url=url),
                origin=printable(url),
            )
        if not found:
            raise SourceError(f"no images in {self.name} (it lists no URLs)")

    def records(self, items: Sequence[Item]) -> Iterator[ImageRecord | Reject]:
        """The images of some items, in their order. Their download begins with this call.

        A URL that comes twice among the items is downloaded once.

        Raises (while it is read):
            SourceError: nothing at all could be reached: the network is down here.
            DataFolderError: the images cannot be kept.
        """
        from ingest.download import Downloader

        if self._downloader is None:
            self._downloader = Downloader(self.settings, self.max_bytes, self._resolver)
        first_at: dict[str, int] = {}
        for i, item in enumerate(items):
            first_at.setdefault(item.key, i)
        asked = [item for i, item in enumerate(items) if first_at[item.key] == i]
        outcomes = self._downloader.outcomes(
            [(item.metadata.url, _sha256_of(item.metadata)) for item in asked]
        )
        return self._records(items, outcomes)

    def read(self, item: Item) -> ImageRecord | Reject:
        """Download one image."""
        return next(self.records([item]))

    def close(self) -> None:
        """Break off downloads, close connections. The source may be used again."""
        if self._downloader is not None:
            self._downloader.close()
            self._downloader = None

    def __del__(self) -> None:
        self.close()

    def _records(
        self, items: Sequence[Item], outcomes: Generator[Outcome]
    ) -> Iterator[ImageRecord | Reject]:
        """Records and rejects in the items' order; what came of a URL is used for all its items."""
        folder = self.settings.keep_images
        earlier: dict[str, Outcome] = {}
        repeated = {key for key, count in Counter(item.key for item in items).items() if count > 1}
        network = _Network()
        with closing(outcomes), _keeping(folder, self.path, items) as kept:
            for item in items:
                outcome = earlier.get(item.key)
                if outcome is None:
                    outcome = next(outcomes)
                    network.saw(item.metadata.url, outcome)
                    if kept is not None:
                        kept.add(item, outcome)
                    if item.key in repeated:
                        earlier[item.key] = outcome
                yield self._record(item, outcome)
            if network.is_down:
                raise SourceError(
                    f"{self.name}: none of {len(network.silent)} hosts could be reached; when the "
                    "network is up again, the same command goes on"
                )

    def _record(self, item: Item, outcome: Outcome) -> ImageRecord | Reject:
        if isinstance(outcome, ImageError):
            return Reject(item.key, item.origin, outcome.reason, outcome.detail)
        known = item.metadata
        extra = dict(known.extra)
        if self.settings.ignore_opt_out:
            extra["opt_out"] = "ignored"
        return ImageRecord(
            key=item.key,
            data=outcome.data,
            path=item.origin,
            url=item.origin,
            caption=known.caption,
            creator=known.creator,
            licence=known.licence,
            extra=extra,
        )

    def _rows(self) -> Iterator[tuple[str, Metadata]]:
        """(URL, what the row says); the URL '' where the row has none."""
        if self.column is None:
            for line in text_lines(self.path):
                yield line, Metadata()
            return
        for batch in open_table(self.path).batches:
            if self.column not in batch.schema.names:
                raise SourceError(f"{self.name}: column {self.column} holds no URLs but other data")
            for row in batch.to_pylist():
                value = row[self.column]
                url = "" if value is None else str(value).strip()
                yield url, Metadata.from_row(row, without={self.column})


def _sha256_of(metadata: Metadata) -> str:
    """The SHA-256 that a row gives for the image's bytes; '' where it gives none."""
    for name, value in metadata.extra.items():
        if name.casefold() == "sha256" and isinstance(value, str) and _SHA256.fullmatch(value):
            return value.lower()
    return ""


@dataclass
class _Network:
    """Whether our own network seems to be down, judged by what came of a shard's downloads.

    Attributes:
        silent: hosts to which no connection came about.
        worked: something was reached; a name server that knows no such name counts.
    """

    silent: set[str] = field(default_factory=set)
    worked: bool = False

    def saw(self, url: str, outcome: Outcome) -> None:
        """Take a download into account."""
        if isinstance(outcome, TransientError) and outcome.reason in NO_ANSWER:
            self.silent.add(urlsplit(url).netloc)
        elif not isinstance(outcome, LeftAloneError):
            self.worked = True

    @property
    def is_down(self) -> bool:
        """Many hosts were asked, and none answered."""
        return not self.worked and len(self.silent) >= _OFFLINE_HOSTS


def _keeping(
    folder: Path | None, listing: Location, items: Sequence[Item]
) -> AbstractContextManager[KeptImages | None]:
    from ingest.download_keep import KeptImages

    return nullcontext() if folder is None else KeptImages(folder, listing, items)
