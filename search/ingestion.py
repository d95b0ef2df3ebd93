"""The ingest pipeline on one machine: sources to decoded images to features to the index.

Threads: a pool reads, decodes and preprocesses ahead; the main thread embeds, a batch at a time; a
writer thread (`search.writer`) writes shard, index and ledger. What is held in memory is bounded by
the batch size, whatever the number of images.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embed.prepare import Prepared, prepare
from embed.preprocess import Preprocessing
from ingest.decode import DecodeLimits
from ingest.errors import SourceError
from ingest.ledger import TarRow
from ingest.record import ImageRecord, Reject
from ingest.source import Item, ItemSource, Source, TarSource, UrlListSource
from search.collection import Collection
from search.plan import Plan, Work, broken_signature, origin_of
from search.rejects import write_rejects
from search.removal import carry_out_removals, mend
from search.writer import Batch, Failure, Finished, Origin, Started, Writer

__all__ = ["Embeds", "IngestReport", "IngestSettings", "Progress", "ingest"]


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


class Progress(Protocol):
    """What a caller can show while images are ingested."""

    def start(self, pending: int | None) -> None:
        """So many images are to be done; None where that is not known beforehand."""
        ...

    def advance(self, images: int) -> None:
        """So many more images are done, rejected ones among them."""
        ...

    def building(self) -> None:
        """All images are embedded; the index is being built."""
        ...


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        ingested: images embedded and indexed.
        unchanged: images that were there already.
        rejected: images that could not be used, by reason.
        buried: images passed over since they were taken down.
        broken: tars that ended too early, one line each; what was whole of them is in.
        total: images of the collection now.
        shards: shards finished.
    """

    dataset: str
    ingested: int
    unchanged: int
    rejected: dict[str, int]
    buried: int
    broken: list[str]
    total: int
    shards: int


def ingest(
    collection: Collection,
    backbone: Callable[[], Embeds],
    sources: Sequence[Source],
    dataset: str,
    *,
    settings: IngestSettings,
    force: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> IngestReport:
    """Bring `sources` into the collection as `dataset`; what is there unchanged is passed over.

    With `retry_failed`, images that could not be used are tried again.

    `backbone` is called for the loaded backbone once there is something to embed.

    Killed at any moment, the same call goes on, and the end is the same as of an unbroken run.

    Raises:
        SourceError: a source has no images, or breaks off.
        DataFolderError: the disk is full or the folder read-only.
        IndexFailedError: the index failed.
    """
    ledger = collection.ledger
    mark = f"forced:{dataset}"
    forced_from: int | None = None
    if force:
        begun = ledger.mark(mark)
        forced_from = int(begun) if begun is not None else ledger.next_shard()
        ledger.set_mark(mark, str(forced_from))
    plan = Plan(ledger, dataset, settings.shard_size, forced_from, retry_failed)
    if progress is not None:
        progress.start(plan.pending(sources))
    dim = collection.model.backbone.dim
    writer = Writer(
        collection.folder, ledger, collection.index, collection.model.mappers, dataset, dim
    )
    with writer, _pool(settings.decode_threads) as pool:
        _Run(plan, backbone, writer, pool, collection, settings, progress).go(sources)
    if plan.clashes:
        ledger.add_rejects(dataset, plan.clashes)
    ledger.set_mark(mark, None)
    if progress is not None:
        progress.building()
    carry_out_removals(collection.folder, ledger, collection.name, collection.index)
    collection.index.build()
    mend(collection)
    write_rejects(collection.folder, ledger)
    counts = writer.counts
    reasons = dict(counts.reasons)
    for reject in plan.clashes:
        reasons[reject.reason.value] = reasons.get(reject.reason.value, 0) + 1
    return IngestReport(
        dataset=dataset,
        ingested=counts.images,
        unchanged=plan.unchanged,
        rejected=reasons,
        buried=plan.buried + counts.buried,
        broken=plan.broken,
        total=collection.index.count(),
        shards=counts.shards,
    )


_Outcome: TypeAlias = tuple[Prepared | Reject, Origin]
_Event: TypeAlias = "Started | Future[_Outcome] | Finished"


class _Run:
    """One pass over the plan."""

    def __init__(
        self,
        plan: Plan,
        backbone: Callable[[], Embeds],
        writer: Writer,
        pool: ThreadPoolExecutor,
        collection: Collection,
        settings: IngestSettings,
        progress: Progress | None,
    ) -> None:
        self._plan = plan
        self._backbone = backbone
        self._embedder: Embeds | None = None
        self._writer = writer
        self._pool = pool
        self._next = collection.ledger.next_shard()
        self._preprocessing = collection.model.backbone.preprocessing
        self._settings = settings
        self._progress = progress
        self._images: list[Prepared] = []
        self._origins: list[Origin] = []

    def go(self, sources: Sequence[Source]) -> None:
        ahead = 2 * self._settings.batch_size + self._settings.decode_threads
        for event in _ahead(self._events(sources), ahead):
            if isinstance(event, Started):
                self._writer.put(event)
            elif isinstance(event, Finished):
                self._embed()
                self._writer.put(event)
            else:
                self._take(*event.result())

    def _events(self, sources: Sequence[Source]) -> Iterator[_Event]:
        for work, downloads in _downloading(self._plan.works(sources)):
            yield Started(self._next, work.source.name)
            self._next += 1
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
            self._plan.broken.append(broken)
        yield Finished(TarRow(path, signature, source.stem), broken)

    @property
    def _arguments(self) -> tuple[str, Preprocessing, DecodeLimits]:
        return self._plan.dataset, self._preprocessing, self._settings.limits

    def _take(self, outcome: Prepared | Reject, origin: Origin) -> None:
        if isinstance(outcome, Reject):
            self._writer.put(Failure(outcome, origin))
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
        self._writer.put(Batch(self._images, self._origins, features))
        self._advance(len(self._images))
        self._images, self._origins = [], []

    def _advance(self, images: int) -> None:
        if self._progress is not None:
            self._progress.advance(images)


class _pool(ThreadPoolExecutor):  # noqa: N801
    """A thread pool that does not finish what is waiting when its block is left by an error."""

    def __init__(self, threads: int) -> None:
        super().__init__(max_workers=threads, thread_name_prefix="attrib-decode")

    def __exit__(self, kind: object, *exc: object) -> None:
        self.shutdown(wait=True, cancel_futures=kind is not None)


def _downloading(
    works: Iterable[Work],
) -> Iterator[tuple[Work, Iterator[ImageRecord | Reject] | None]]:
    """Each work with its downloads, where it is of URLs.

    The downloads of a shard begin before the shard in front of it is done, so that its slowest
    image is waited for in company.
    """
    waiting: deque[tuple[Work, Iterator[ImageRecord | Reject] | None]] = deque()
    for work in works:
        of_urls = work.source if isinstance(work.source, UrlListSource) else None
        waiting.append((work, of_urls.records(work.items or ()) if of_urls else None))
        while len(waiting) > (1 if of_urls else 0):
            yield waiting.popleft()
    yield from waiting


def _ahead(events: Iterable[_Event], count: int) -> Iterator[_Event]:
    """The events in order, each read `count` events before it is needed."""
    waiting: deque[_Event] = deque()
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
