"""Signs of life of a worker and of the shard that it has, from a thread of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ingest.errors import WorkersError
from workers.board import Beat, Board, WorkerState
from workers.order import Order
from workers.rate import Rate

__all__ = ["Heartbeat"]

_EVERY_S = 3.0
_WORKER_LEASE_S = 15.0
_IDLE_S = 5.0  # longer than from one shard to the next


class Heartbeat:
    """Beats from `start` to `stop`. Redis may be away: the next beat says the same.

    Attributes:
        stage: what is being done, for people.
        device: that is embedded on.
    """

    def __init__(self, board: Board, name: str) -> None:
        self.stage = ""
        self.device = ""
        self._board = board
        self._name = name
        self._order: Order | None = None
        self._images = 0
        self._rate = Rate()
        self._idle_since = time.monotonic()
        self._lost = False
        self._mutex = threading.Lock()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attrib-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and say so."""
        self._ended.set()
        self._wake.set()
        self._thread.join()
        with suppress(WorkersError):
            self._board.leave(self._name)

    @contextmanager
    def shard(self, order: Order) -> Iterator[None]:
        """While a shard is worked on; the first beat is out when this begins."""
        with self._mutex:
            self._order, self._images, self._lost = order, 0, False
        self.stage = "starting"
        with suppress(WorkersError):
            self._beat()
        self._wake.set()
        try:
            yield
        finally:
            with self._mutex:
                self._order = None
                self._idle_since = time.monotonic()
            self.stage = ""
            with suppress(WorkersError):
                self._board.still(order.plan, order.spec.number)

    def advance(self, images: int) -> None:
        """So many more images of the shard are done."""
        with self._mutex:
            self._images += images
            self._rate.advance(images)

    @property
    def lost(self) -> bool:
        """The shard was given to another worker, or cancelled."""
        return self._lost

    def _run(self) -> None:
        while not self._ended.is_set():
            order = self._order
            self._wake.wait(_EVERY_S if order is None else min(_EVERY_S, order.lease_s / 4))
            self._wake.clear()
            with suppress(WorkersError):
                self._beat()

    def _beat(self) -> None:
        with self._mutex:
            order, images = self._order, self._images
            if order is None and time.monotonic() - self._idle_since > _IDLE_S:
                self._rate.rest()
            total, rate = self._rate.total, self._rate.recent
        name = order.spec.name if order else ""
        self._board.live(
            WorkerState(self._name, self.device, total, round(rate, 2), name), _WORKER_LEASE_S
        )
        if order is None:
            return
        plan, number = order.plan, order.spec.number
        wanted = self._board.wanted(plan, [number])[0]
        if wanted is not None and wanted != order.send:
            self._lost = True
            return
        self._board.beat(
            plan, number, Beat(self._name, order.send, images, self.stage), order.lease_s
        )
