"""From sources to features: reading, decoding, embedding, a shard at a time; it needs no ledger.

Threads: a pool reads, decodes and preprocesses ahead; the calling thread embeds, a batch at a time.
What is held in memory is bounded by the batch size, whatever the number of images.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from embed.prepare import Prepared, prepare
from embed.preprocess import Preprocessing
from ingest.decode import DecodeLimits
from ingest.errors import SourceError
from ingest.ledger import TarRow
from ingest.record import ImageRecord, Reject
from ingest.source import Item, ItemSource, TarSource, UrlListSource
from search.admission import Origin
from search.plan import Work, broken_signature, origin_of
from search.writer import Batch, Failure, Finished, Message, Started

__all__ = ["DecodePool", "Embeds", "IngestSettings", "Pipeline", "in_advance"]

T = TypeVar("T")


@dataclass(frozen=True)
class IngestSettings:
    """Sizes of the pipeline.

    Attributes:
        shard_size: images of a folder chunk; what is lost at most when the process is killed.
        batch_size: images embedded at once.
        decode_threads: readers and decoders; as many as there are cores, unless given.
        limits: what an image may be.
    """

    shard_size: int = 1024
    batch_size: int = 32
    decode_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    limits: DecodeLimits = field(default_factory=DecodeLimits)


class Embeds(Protocol):
    """What the pipeline needs of a backbone; `embed.embedder.Embedder` is one."""

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(images, dim) base features of (images, height, width, 3) pixels."""
        ...


_Outcome: TypeAlias = tuple[Prepared | Reject, Origin]
_Event: TypeAlias = "Started | Future[_Outcome] | Finished"


class Pipeline:
    """Shards in, messages out, in order.

    Args:
        backbone: called for the loaded backbone once there is something to embed.
        dataset: that the images are to belong to.
        preprocessing: the backbone's.
        settings: sizes.
        pool: readers and decoders.
        put: takes the messages.
        advance: told of images that are done, rejected ones among them.
    """

    def __init__(
        self,
        backbone: Callable[[], Embeds],
        dataset: str,
        preprocessing: Preprocessing,
        settings: IngestSettings,
        pool: DecodePool,
        put: Callable[[Message], None],
        advance: Callable[[int], None],
    ) -> None:
        self._backbone = backbone
        self._embedder: Embeds | None = None
        self._settings = settings
        self._pool = pool
        self._put = put
        self._advance = advance
        self._arguments = (dataset, preprocessing, settings.limits)
        self._images: list[Prepared] = []
        self._origins: list[Origin] = []

    def run(self, works: Iterable[tuple[int, Work]]) -> None:
        """Do the shards, each under its number.

        Raises:
            SourceError: a source cannot be read at all.
            WeightsError: the backbone fails.
        """
        ahead = 2 * self._settings.batch_size + self._settings.decode_threads
        for event in in_advance(self._events(works), ahead):
            if isinstance(event, Started):
                self._put(event)
            elif isinstance(event, Finished):
                self._embed()
                self._put(event)
            else:
                self._take(*event.result())

    def _events(self, works: Iterable[tuple[int, Work]]) -> Iterator[_Event]:
        for number, work, downloads in _downloading(works):
            yield Started(number, work.source.name)
            if isinstance(work.source, TarSource):
                yield from self._read_tar(work.source)
            elif downloads is not None:
                for item, record in zip(work.items or (), downloads, strict=True):
                    origin = Origin(item.origin, item.signature)
                    yield self._pool.submit(_prepare_record, record, origin, *self._arguments)
                yield Finished()
            else:
                for item in work.items or ():
                    yield self._pool.submit(_prepare_item, work.source, item, *self._arguments)
                yield Finished()

    def _read_tar(self, source: TarSource) -> Iterator[_Event]:
        """What is whole of a cut-off tar counts; that it was cut off is kept and reported."""
        path, signature = origin_of(source.path), source.signature
        origin = Origin(path, signature)
        broken = ""
        try:
            for record in source.records():
                yield self._pool.submit(_prepare_record, record, origin, *self._arguments)
        except SourceError as exc:
            broken = str(exc)
            signature = broken_signature(source)
        yield Finished(TarRow(path, signature, source.stem), broken)

    def _take(self, outcome: Prepared | Reject, origin: Origin) -> None:
        if isinstance(outcome, Reject):
            self._put(Failure(outcome, origin))
            self._advance(1)
            return
        self._images.append(outcome)
        self._origins.append(origin)
        if len(self._images) == self._settings.batch_size:
            self._embed()

    def _embed(self) -> None:
        """Batches end with their shard: its features do not depend on its neighbours."""
        if not self._images:
            return
        if self._embedder is None:
            self._embedder = self._backbone()
        features = self._embedder.embed(np.stack([image.pixels for image in self._images]))
        self._put(Batch(self._images, self._origins, features))
        self._advance(len(self._images))
        self._images, self._origins = [], []


class DecodePool(ThreadPoolExecutor):
    """A thread pool that does not finish what is waiting when its block is left by an error."""

    def __init__(self, threads: int) -> None:
        super().__init__(max_workers=threads, thread_name_prefix="attrib-decode")

    def __exit__(self, kind: object, *exc: object) -> None:
        self.shutdown(wait=True, cancel_futures=kind is not None)


_Shard: TypeAlias = tuple[int, Work, Iterator[ImageRecord | Reject] | None]


def _downloading(
    works: Iterable[tuple[int, Work]],
) -> Iterator[_Shard]:
    """Each work with its downloads, where it is of URLs.

    The downloads of a shard begin before the shard in front of it is done, so that its slowest
    image is waited for in company.
    """
    waiting: deque[_Shard] = deque()
    for number, work in works:
        of_urls = work.source if isinstance(work.source, UrlListSource) else None
        waiting.append((number, work, of_urls.records(work.items or ()) if of_urls else None))
        while len(waiting) > (1 if of_urls else 0):
            yield waiting.popleft()
    yield from waiting


def in_advance(events: Iterable[T], count: int) -> Iterator[T]:
    """The events in order, each read `count` events before it is needed."""
    waiting: deque[T] = deque()
    for event in events:
        waiting.append(event)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _prepare_record(
    record: ImageRecord | Reject,
    origin: Origin,
    dataset: str,
    preprocessing: Preprocessing,
    limits: DecodeLimits,
) -> _Outcome:
    if isinstance(record, Reject):
        return record, origin
    return prepare(record, dataset, preprocessing, limits), origin


def _prepare_item(
    source: ItemSource,
    item: Item,
    dataset: str,
    preprocessing: Preprocessing,
    limits: DecodeLimits,
) -> _Outcome:
    origin = Origin(origin_of(item.path), item.signature)
    return _prepare_record(source.read(item), origin, dataset, preprocessing, limits)
