"""Shards kept on one machine: as feature files, index points and, last of all, a ledger entry."""

from __future__ import annotations

import numpy as np

from embed.mapper import MapperPair
from embed.shards import ShardWriter
from ingest.ledger import Ledger, ShardRow
from ingest.record import point_id
from ingest.storage import Location
from search.admission import Admission, Counts
from search.folder import DataFolder, writing
from search.index import Index
from search.writer import Batch, Failure, Finished, Message, Started

__all__ = ["LedgerSink"]


class LedgerSink:
    """A `search.writer.ShardSink`.

    Attributes:
        counts: of all shards so far.
    """

    def __init__(
        self,
        folder: DataFolder,
        ledger: Ledger,
        index: Index,
        mappers: MapperPair,
        dataset: str,
        dim: int,
    ) -> None:
        self.counts = Counts()
        self._folder = folder
        self._ledger = ledger
        self._index = index
        self._mappers = mappers
        self._dataset = dataset
        self._dim = dim
        self._buried = ledger.buried_bytes()
        self._shard: _OpenShard | None = None

    def handle(self, message: Message) -> None:
        """As `ShardSink.handle`.

        Raises:
            DataFolderError: the disk refuses.
            IndexFailedError: the index fails.
        """
        with writing(self._folder.root):
            if isinstance(message, Started):
                self._start(message)
            elif isinstance(message, Batch):
                self._write(message)
            elif isinstance(message, Failure):
                self._open.admission.fail(message.reject, message.origin)
            else:
                self._finish(message)

    def abandon(self) -> None:
        """As `ShardSink.abandon`."""
        if self._shard is not None:
            self._shard.files.abandon()
            self._shard = None

    @property
    def _open(self) -> _OpenShard:
        if self._shard is None:
            raise RuntimeError("no shard was started")
        return self._shard

    def _start(self, started: Started) -> None:
        admission = Admission(
            self._ledger, self._dataset, started.source, self.counts, self._buried
        )
        folder = self._folder.features(self._dataset)
        self._shard = _OpenShard(started, folder, self._dim, admission)

    def _write(self, batch: Batch) -> None:
        shard = self._open
        kept = shard.admission.admit([image.row for image in batch.images], batch.origins)
        if not kept:
            return
        # What the index holds is what a re-map from the shard would give: float16 first.
        half = batch.features[kept].astype(np.float16)
        rows = [batch.images[i].row for i in kept]
        shard.files.append(half, rows, [batch.images[i].thumbnail for i in kept])
        self._index.upsert(
            [point_id(self._dataset, row.key) for row in rows],
            self._mappers.real(half.astype(np.float32)),
            [row.payload(shard.started.number) for row in rows],
        )

    def _finish(self, message: Finished) -> None:
        shard = self._open
        admission = shard.admission
        if (cut_off := message.cut_off) is not None:
            admission.reject(cut_off, claimed_by=None)
        shard.files.finish()
        self._index.flush()
        self._ledger.finish(
            ShardRow(
                shard.started.number,
                self._dataset,
                shard.started.source,
                shard.files.rows,
                len(admission.rejects),
            ),
            admission.entries,
            admission.rejects,
            tar=message.tar,
        )
        self._shard = None
        self.counts.shards += 1


class _OpenShard:
    def __init__(self, started: Started, folder: Location, dim: int, admission: Admission) -> None:
        self.started = started
        self.files = ShardWriter(folder, started.number, dim)
        self.admission = admission
