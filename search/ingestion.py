"""The ingest on one machine: what the ledger lacks goes through the pipeline, into the index.

Killed at any moment, the same call goes on: the ledger says what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from ingest.source import Source
from search.admission import Counts
from search.collection import Collection
from search.ledger_sink import LedgerSink
from search.pipeline import DecodePool, Embeds, IngestSettings, Pipeline
from search.plan import Plan
from search.rejects import write_rejects
from search.removal import carry_out_removals, mend
from search.writer import Finished, Message, Writer

__all__ = [
    "Embeds",
    "IngestReport",
    "IngestSettings",
    "Progress",
    "conclude",
    "forced_from",
    "ingest",
]


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
    first = forced_from(collection, dataset, force)
    plan = Plan(ledger, dataset, settings.shard_size, first, retry_failed)
    if progress is not None:
        progress.start(plan.pending(sources))
    backbone_of = collection.model.backbone
    sink = LedgerSink(
        collection.folder,
        ledger,
        collection.index,
        collection.model.mappers,
        dataset,
        backbone_of.dim,
    )
    with Writer(sink) as writer, DecodePool(settings.decode_threads) as pool:

        def put(message: Message) -> None:
            if isinstance(message, Finished) and message.broken:
                plan.broken.append(message.broken)
            writer.put(message)

        pipeline = Pipeline(
            backbone,
            dataset,
            backbone_of.preprocessing,
            settings,
            pool,
            put,
            progress.advance if progress is not None else lambda images: None,
        )
        pipeline.run(zip(count(ledger.next_shard()), plan.works(sources), strict=False))
    return conclude(collection, dataset, plan, sink.counts, progress)


def forced_from(
    collection: Collection, dataset: str, force: bool, *, first: int | None = None
) -> int | None:
    """The number of the first shard of a forced run, which survives a kill; None for another.

    `first`: of one that begins now; the ledger's next, unless given.
    """
    if not force:
        return None
    ledger = collection.ledger
    begun = ledger.mark(_forced_mark(dataset))
    if begun is not None:
        return int(begun)
    first = ledger.next_shard() if first is None else first
    ledger.set_mark(_forced_mark(dataset), str(first))
    return first


def conclude(
    collection: Collection,
    dataset: str,
    plan: Plan,
    counts: Counts,
    progress: Progress | None,
) -> IngestReport:
    """All shards are in the ledger: settle the rest, build the index, and report.

    Raises:
        DataFolderError: the disk refuses.
        IndexFailedError: the index fails.
    """
    ledger = collection.ledger
    if plan.clashes:
        ledger.add_rejects(dataset, plan.clashes)
    ledger.set_mark(_forced_mark(dataset), None)
    if progress is not None:
        progress.building()
    carry_out_removals(collection.folder, ledger, collection.name, collection.index)
    collection.index.build()
    mend(collection)
    write_rejects(collection.folder, ledger)
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


def _forced_mark(dataset: str) -> str:
    return f"forced:{dataset}"
