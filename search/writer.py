"""The end of the ingest pipeline: a thread that hands each batch to whatever keeps it.

In a thread of its own, disk and index work while the next batch is embedded. All that is done is
done in order.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embed.prepare import Prepared
from ingest.errors import RejectReason
from ingest.ledger import TarRow
from ingest.record import Reject
from search.admission import Origin

__all__ = ["Batch", "Failure", "Finished", "Message", "ShardSink", "Started", "Writer"]

_WAITING = 4  # batches in the queue before the embedder has to wait


@dataclass(frozen=True)
class Started:
    """A shard begins."""

    number: int
    source: str


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

    @property
    def cut_off(self) -> Reject | None:
        """The reject that stands for what did not come of a tar."""
        if self.tar is None or not self.broken:
            return None
        reason = RejectReason.SOURCE_CUT_OFF
        return Reject(self.tar.stem, self.tar.path, reason, self.broken)


Message: TypeAlias = Started | Batch | Failure | Finished


class ShardSink(Protocol):
    """What keeps shards."""

    def handle(self, message: Message) -> None:
        """Keep the next thing of the pipeline."""
        ...

    def abandon(self) -> None:
        """Nothing more comes: drop a shard that is not whole."""
        ...


class Writer:
    """Use as a context manager: leaving it waits for what was put in, or drops it on an error."""

    def __init__(self, sink: ShardSink) -> None:
        self._sink = sink
        self._queue: queue.Queue[Message | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="attrib-writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._stop = kind is not None
        if kind is None:
            try:
                self.put(None)
            except BaseException:
                self._finish()
                raise
        else:
            self._drain()
            self._queue.put(None)
        self._finish()
        if kind is None and self._error is not None:
            raise self._error

    def put(self, message: Message | None) -> None:
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

    def _finish(self) -> None:
        self._thread.join()
        self._sink.abandon()

    def _drain(self) -> None:
        try:
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            pass

    def _run(self) -> None:
        try:
            while (message := self._queue.get()) is not None:
                if not self._stop:
                    self._sink.handle(message)
        except BaseException as exc:  # handed to the main thread, which raises it
            self._error = exc
