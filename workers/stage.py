"""A shard kept by a worker: staged features, points on the server, and last of all a result."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from embed.mapper import MapperPair
from embed.shards import ShardWriter
from ingest.record import point_id
from search.index import Index
from search.writer import Batch, Failure, Finished, Message, Started
from workers.results import Image, Outcome, Result, discard, staged, write_result

if TYPE_CHECKING:
    from workers.order import Order

__all__ = ["NotWantedError", "StageSink"]


class NotWantedError(Exception):
    """The shard was given to another worker, or cancelled: nothing of it is to be kept."""


class StageSink:
    """A `search.writer.ShardSink` that needs no ledger.

    Args:
        order: the shard, and where it goes.
        index: where it is on a server; None where the coordinator has it.
        mappers: of the model.
        dim: of the backbone.
        fingerprint: of the features.
        worker: name of this one.
        check: raises `NotWantedError`.
        spent: takes a stage of the work, and the seconds that went into it.
    """

    def __init__(
        self,
        order: Order,
        index: Index | None,
        mappers: MapperPair,
        dim: int,
        worker: str,
        check: Callable[[], None],
        timed: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._order = order
        self._index = index
        self._mappers = mappers
        self._dim = dim
        self._worker = worker
        self._check = check
        self._timed = timed
        self._began = time.monotonic()
        self._files: ShardWriter | None = None
        self._outcomes: list[Outcome] = []
        self._keys: set[str] = set()
        self.finished = False

    def handle(self, message: Message) -> None:
        """As `ShardSink.handle`.

        Raises:
            NotWantedError: before anything is written that counts.
            OSError: the disk refuses.
            IndexFailedError: the server does.
        """
        if isinstance(message, Started):
            order = self._order
            number = order.spec.number
            folder = staged(order.features, order.plan, number, order.send)
            self._files = ShardWriter(folder, number, self._dim)
        elif isinstance(message, Failure):
            self._outcomes.append(Outcome(message.reject, message.origin))
        elif isinstance(message, Batch):
            with self._timed("index"):
                self._write(message)
        else:
            with self._timed("index"):
                self._finish(message)

    def abandon(self) -> None:
        """As `ShardSink.abandon`."""
        if self._files is not None:
            self._files.abandon()
            self._files = None
        if not self.finished:
            order = self._order
            discard(order.features, order.plan, order.spec.number, order.send)

    @property
    def _open(self) -> ShardWriter:
        if self._files is None:
            raise RuntimeError("no shard was started")
        return self._files

    def _write(self, batch: Batch) -> None:
        rows = [image.row for image in batch.images]
        half = batch.features.astype(np.float16)
        self._open.append(half, rows, [image.thumbnail for image in batch.images])
        fresh = []
        for i, (row, origin) in enumerate(zip(rows, batch.origins, strict=True)):
            self._outcomes.append(Outcome(Image(row.key, row.path, row.sha256), origin))
            if row.key not in self._keys:
                self._keys.add(row.key)
                fresh.append(i)
        if self._index is not None and fresh:
            self._check()
            spec = self._order.spec
            self._index.upsert(
                [point_id(spec.dataset, rows[i].key) for i in fresh],
                self._mappers.real(half[fresh].astype(np.float32)),
                [rows[i].payload(spec.number) for i in fresh],
            )

    def _finish(self, message: Finished) -> None:
        self._open.finish()
        self._files = None
        if self._index is not None:
            self._index.flush()
        self._check()
        order = self._order
        result = Result(
            number=order.spec.number,
            plan=order.plan,
            send=order.send,
            digest=order.digest,
            fingerprint=order.fingerprint,
            worker=self._worker,
            seconds=time.monotonic() - self._began,
            outcomes=self._outcomes,
            tar=message.tar,
            broken=message.broken,
        )
        write_result(order.features, result)
        self.finished = True
