"""Work of concurrent requests done together: one thread takes what waits, in batches."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["Batcher"]

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Runs a function of many items on the items of many callers.

    How many may wait is bounded by the callers (`search.service.admission`). An error of a batch is
    told to the item that caused it alone: the items are then run one by one.

    Args:
        name: of the thread.
        run: from items to their results, in order; called in one thread, which is the only one.
        largest: batch.
        wait_s: how long to wait for further items while there are fewer.
        coming: whether there may be further ones soon; who is alone does not wait.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[T]], Iterable[R]],
        *,
        largest: int,
        wait_s: float,
        coming: Callable[[], bool] = lambda: True,
    ) -> None:
        self._run = run
        self._coming = coming
        self._largest = largest
        self._wait_s = wait_s
        self._waiting: queue.SimpleQueue[tuple[T, Future[R]] | None] = queue.SimpleQueue()
        self._closed = False
        self._mutex = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Items that wait now."""
        return self._waiting.qsize()

    def submit(self, item: T) -> Future[R]:
        """The result to come. Items of callers that gave up (cancelled futures) are not run.

        Raises:
            RuntimeError: it was closed.
        """
        future: Future[R] = Future()
        with self._mutex:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.put((item, future))
        return future

    async def result(self, item: T) -> R:
        """The result of one item, awaited."""
        return await asyncio.wrap_future(self.submit(item))

    def close(self) -> None:
        """Finish what was accepted, and end the thread. Calling it again does nothing."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        going = True
        while going:
            first = self._waiting.get()
            if first is None:
                return
            batch = [first]
            until = time.monotonic() + self._wait_s
            while len(batch) < self._largest:
                left = until - time.monotonic() if self._coming() else 0
                try:
                    entry = self._waiting.get(timeout=max(left, 0))
                except queue.Empty:
                    break
                if entry is None:
                    going = False
                    break
                batch.append(entry)
            self._settle([entry for entry in batch if entry[1].set_running_or_notify_cancel()])

    def _settle(self, batch: list[tuple[T, Future[R]]]) -> None:
        if not batch:
            return
        try:
            results = self._run([item for item, _ in batch])
        except Exception as exc:
            if len(batch) == 1:
                batch[0][1].set_exception(exc)
                return
            for entry in batch:
                self._settle([entry])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
