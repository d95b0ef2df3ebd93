"""One shard to be ingested, as text: what a worker has to know of it, and nothing of the ledger."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ingest.decode import DecodeLimits
from ingest.download_settings import DownloadSettings
from ingest.item import Item, ItemSource
from ingest.metadata import Metadata
from ingest.source import Source, TarSource, UrlListSource
from ingest.storage import Location, is_remote, location
from search.plan import Work, origin_of

__all__ = ["ShardSpec", "dump_spec", "load_spec", "pack", "spec_of", "unpack"]

FORMAT = 1


@dataclass(frozen=True)
class ShardSpec:
    """A shard, and all that its features depend on but the model.

    Attributes:
        number: of the shard in its data folder.
        dataset: that its images belong to.
        kind: of its source: ``items``, ``urls`` or ``tar``.
        path: of the source.
        name: of the source, for people.
        items: its images; None for a whole tar.
        signature: of the tar when it was planned; '' for items.
        batch_size: images embedded at once: the last bits of a feature may depend on it.
        limits: what an image may be.
        column: holds the URLs, of a list of them.
        download: how these are downloaded.
    """

    number: int
    dataset: str
    kind: Literal["items", "urls", "tar"]
    path: Location
    name: str
    items: tuple[Item, ...] | None
    signature: str
    batch_size: int
    limits: DecodeLimits
    column: str | None = None
    download: DownloadSettings | None = None

    @property
    def origin(self) -> str:
        """The tar's place as the ledger keeps it."""
        return origin_of(self.path)

    def work(self) -> Work:
        """The shard, to be run through the pipeline."""
        source: Source
        if self.kind == "tar":
            source = _PlannedTar(self.path, self.limits.max_bytes, self.signature)
        elif self.kind == "urls":
            source = UrlListSource(self.path, self.limits.max_bytes, self.column, self.download)
        else:
            source = _PlannedItems(self.path, self.limits.max_bytes, self.items or ())
        source.name = self.name
        return Work(source, self.items)


class _PlannedTar(TarSource):
    """Known to the ledger as it was when it was planned; a change since is found by the next plan.

    So clocks and the roundings of different mounts make no tar look changed.
    """

    def __init__(self, path: Location, max_bytes: int, signature: str) -> None:
        super().__init__(path, max_bytes)
        self._planned = signature

    @property
    def signature(self) -> str:
        """As `TarSource.signature`, and it raises as that does."""
        _ = super().signature  # whether it is there at all
        return self._planned


class _PlannedItems(ItemSource):
    def __init__(self, path: Location, max_bytes: int, items: tuple[Item, ...]) -> None:
        super().__init__(path, max_bytes)
        self._items = items

    def items(self) -> Iterator[Item]:
        """The planned images."""
        return iter(self._items)


def spec_of(
    number: int, dataset: str, work: Work, *, batch_size: int, limits: DecodeLimits
) -> ShardSpec:
    """What `work` is under that number.

    Raises:
        SourceError: the tar is not there any more.
    """
    source = work.source
    urls = source if isinstance(source, UrlListSource) else None
    return ShardSpec(
        number=number,
        dataset=dataset,
        kind=source.kind,
        path=source.path,
        name=source.name,
        items=work.items,
        signature=source.signature if isinstance(source, TarSource) else "",
        batch_size=batch_size,
        limits=limits,
        column=urls.column if urls else None,
        download=urls.settings if urls else None,
    )


def dump_spec(spec: ShardSpec) -> dict[str, Any]:
    """As JSON values."""
    return {
        "format": FORMAT,
        "number": spec.number,
        "dataset": spec.dataset,
        "kind": spec.kind,
        "path": _place(spec.path),
        "name": spec.name,
        "items": None if spec.items is None else [_item(item) for item in spec.items],
        "signature": spec.signature,
        "batch_size": spec.batch_size,
        "limits": asdict(spec.limits),
        "column": spec.column,
        "download": None if spec.download is None else _download(spec.download),
    }


def load_spec(values: dict[str, Any]) -> ShardSpec:
    """The inverse of `dump_spec`.

    Raises:
        ValueError: it is of a newer attrib, or no shard at all.
    """
    try:
        if values["format"] > FORMAT:
            raise ValueError(f"a shard in format {values['format']}, from a newer attrib")
        items, download = values["items"], values["download"]
        return ShardSpec(
            number=int(values["number"]),
            dataset=values["dataset"],
            kind=values["kind"],
            path=_location(values["path"]),
            name=values["name"],
            items=None if items is None else tuple(_read_item(item) for item in items),
            signature=values["signature"],
            batch_size=values["batch_size"],
            limits=DecodeLimits(**values["limits"]),
            column=values["column"],
            download=None if download is None else _read_download(download),
        )
    except (KeyError, TypeError) as exc:
        raise ValueError(f"no shard: {type(exc).__name__} {exc}") from exc


def pack(values: dict[str, Any]) -> str:
    """JSON values as short ASCII text."""
    data = json.dumps(values, separators=(",", ":")).encode("ascii")
    return base64.b85encode(zlib.compress(data, 3)).decode("ascii")


def unpack(text: str) -> dict[str, Any]:
    """The inverse of `pack`.

    Raises:
        ValueError: the text is damaged.
    """
    try:
        values = json.loads(zlib.decompress(base64.b85decode(text)))
    except zlib.error as exc:
        raise ValueError(f"damaged: {exc}") from exc
    if not isinstance(values, dict):
        raise ValueError("damaged: no JSON object")
    return values


def _place(at: Location) -> str | list[str]:
    """A URL in a list of one, so that no path is taken for one; paths the same from any folder."""
    return [str(at)] if is_remote(at) else os.path.abspath(at)  # noqa: PTH100 (keep links)


def _location(place: str | list[str]) -> Location:
    return Path(place) if isinstance(place, str) else location(place[0])


def _item(item: Item) -> list[Any]:
    known = item.metadata
    return [
        item.key,
        _place(item.path),
        item.size,
        item.mtime_ns,
        item.signature,
        [_place(sidecar) for sidecar in item.sidecars],
        [known.url, known.caption, known.creator, known.licence, dict(known.extra)],
        item.origin,
    ]


def _read_item(values: list[Any]) -> Item:
    key, path, size, mtime_ns, signature, sidecars, known, origin = values
    return Item(
        key=key,
        path=_location(path),
        size=size,
        mtime_ns=mtime_ns,
        signature=signature,
        sidecars=tuple(_location(sidecar) for sidecar in sidecars),
        metadata=Metadata(*known),
        origin=origin,
    )


def _download(settings: DownloadSettings) -> dict[str, Any]:
    keep = settings.keep_images
    return {**asdict(settings), "keep_images": None if keep is None else str(keep.absolute())}


def _read_download(values: dict[str, Any]) -> DownloadSettings:
    keep = values["keep_images"]
    return DownloadSettings(**{**values, "keep_images": None if keep is None else Path(keep)})
