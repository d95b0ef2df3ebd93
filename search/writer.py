"""The end of the ingest pipeline: batches become a feature shard, index points and a ledger entry.

It runs in a thread of its own, so that disk and index work while the next batch is embedded. All
that it does is in order, and a shard's ledger entry is the last of it.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embed.mapper import MapperPair
from embed.prepare import Prepared
from embed.shards import ShardWriter
from ingest.errors import RejectReason
from ingest.ledger import Entry, Ledger, ShardRow, TarRow
from ingest.record import Reject, point_id
from search.folder import DataFolder, writing
from search.index import Index
from search.plan import clash, is_another

__all__ = ["Batch", "Counts", "Failure", "Finished", "Origin", "Started", "Writer"]

_WAITING = 4  # batches in the queue before the embedder has to wait


@dataclass(frozen=True)
class Started:
    """A shard begins."""

    number: int
    source: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an image came from and how it looked there, for the ledger."""

    path: str
    signature: str


@dataclass(frozen=True)
class Batch:
    """Images of the shard that began last, with their base features (images, dim)."""

    images: list[Prepared]
    origins: list[Origin]
    features: NDArray[np.float32]


@dataclass(frozen=True)
class Failure:
    """An image of the shard that began last, which cannot be used."""

    reject: Reject
    origin: Origin


@dataclass(frozen=True)
class Finished:
    """The shard that began last is whole.

    Attributes:
        tar: the tar that it was made of, if it was.
        broken: why nothing more came of that tar, where it ended too early.
    """

    tar: TarRow | None = None
    broken: str = ""


_Message: TypeAlias = Started | Batch | Failure | Finished | None


@dataclass
class Counts:
    """What was written so far; read by the main thread to show progress."""

    images: int = 0
    rejected: int = 0
    buried: int = 0
    shards: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Writer:
    """Use as a context manager: leaving it waits for what was put in, or drops it on an error."""

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
        self._queue: queue.Queue[_Message] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._shard: _OpenShard | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="attrib-writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._stop = kind is not None
        if kind is None:
            self.put(None)
        else:
            self._drain()
            self._queue.put(None)
        self._thread.join()
        if self._shard is not None:
            self._shard.files.abandon()
        if kind is None and self._error is not None:
            raise self._error

    def put(self, message: _Message) -> None:
        """Hand over the next thing; waits while too much is waiting.

        Raises:
            AttribError: what went wrong with something handed over before.
        """
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._queue.put(message, timeout=0.5)
                return
            except queue.Full:
                continue

    def _drain(self) -> None:
        try:
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            pass

    def _run(self) -> None:
        try:
            while (message := self._queue.get()) is not None:
                if self._stop:
                    continue
                with writing(self._folder.root):
                    self._handle(message)
        except BaseException as exc:  # handed to the main thread, which raises it
            self._error = exc

    def _handle(self, message: Started | Batch | Failure | Finished) -> None:
        if isinstance(message, Started):
            folder = self._folder.features(self._dataset)
            self._shard = _OpenShard(message, folder, self._dim)
        elif isinstance(message, Batch):
            self._write(message)
        elif isinstance(message, Failure):
            self._fail(message)
        else:
            self._finish(message)

    @property
    def _open(self) -> _OpenShard:
        if self._shard is None:
            raise RuntimeError("no shard was started")
        return self._shard

    def _reject(self, reject: Reject, *, claimed_by: Origin | None) -> None:
        """Keep a reject; with `claimed_by`, as what the ledger knows of its key from now on."""
        shard = self._open
        shard.rejects.append(reject)
        if claimed_by is not None:
            shard.keys.add(reject.key)
            shard.entries.append(Entry(reject.key, claimed_by.path, claimed_by.signature, False))
        self.counts.rejected += 1
        reasons = self.counts.reasons
        reasons[reject.reason.value] = reasons.get(reject.reason.value, 0) + 1

    def _fail(self, failure: Failure) -> None:
        reject, origin = failure.reject, failure.origin
        known = self._ledger.known(self._dataset, [reject.key]).get(reject.key)
        taken = reject.key in self._open.keys or is_another(known, origin.path)
        self._reject(reject, claimed_by=None if taken else origin)

    def _write(self, batch: Batch) -> None:
        shard = self._open
        kept = self._admissible(batch)
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
        for i in kept:
            origin = batch.origins[i]
            shard.entries.append(
                Entry(batch.images[i].row.key, origin.path, origin.signature, True)
            )
        self.counts.images += len(kept)

    def _admissible(self, batch: Batch) -> list[int]:
        """Positions of the images that may stand: no key twice, nothing that was taken down."""
        shard = self._open
        keys = [image.row.key for image in batch.images]
        known = self._ledger.known(self._dataset, keys)
        buried = self._ledger.buried(self._dataset, keys)
        kept = []
        for i, (image, origin) in enumerate(zip(batch.images, batch.origins, strict=True)):
            key = image.row.key
            entry = known.get(key)
            if key in buried or (entry is None and image.row.sha256 in self._buried):
                self.counts.buried += 1
            elif key in shard.keys:
                self._reject(clash(key, image.row.path, shard.started.source), claimed_by=None)
            elif entry is not None and is_another(entry, origin.path):
                self._reject(clash(key, image.row.path, entry.origin), claimed_by=None)
            else:
                shard.keys.add(key)
                kept.append(i)
        return kept

    def _finish(self, message: Finished) -> None:
        shard = self._open
        if message.tar is not None and message.broken:
            tar = message.tar
            reason = RejectReason.SOURCE_CUT_OFF
            self._reject(Reject(tar.stem, tar.path, reason, message.broken), claimed_by=None)
        shard.files.finish()
        self._index.flush()
        self._ledger.finish(
            ShardRow(
                shard.started.number,
                self._dataset,
                shard.started.source,
                shard.files.rows,
                len(shard.rejects),
            ),
            shard.entries,
            shard.rejects,
            tar=message.tar,
        )
        self._shard = None
        self.counts.shards += 1


class _OpenShard:
    def __init__(self, started: Started, folder: Path, dim: int) -> None:
        self.started = started
        self.files = ShardWriter(folder, started.number, dim)
        self.entries: list[Entry] = []
        self.rejects: list[Reject] = []
        self.keys: set[str] = set()
