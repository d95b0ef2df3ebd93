"""Downloads beside the pipeline: a thread with an event loop, answers in the order asked for."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeAlias

from ingest.download_address import Resolver, SystemResolver
from ingest.download_fetch import Downloaded, Fetcher
from ingest.download_settings import DownloadSettings
from ingest.errors import ImageError

__all__ = ["Downloader", "Outcome", "Target"]

Target: TypeAlias = tuple[str, str]
"""An address, and the SHA-256 that its bytes should have ('' where that is not known)."""

Outcome: TypeAlias = "Downloaded | ImageError"

_Asked: TypeAlias = "tuple[Target, Future[Downloaded]]"

_MAX_WAITING_BYTES = 256 * 1024 * 1024


class Downloader:
    """Downloads many addresses at once, in a thread of its own.

    New downloads begin in the order of the asking, and not while more than 256 MiB of finished ones
    wait to be taken; so one slow answer holds up neither the others nor the memory.

    Args:
        settings: limits and manners.
        max_bytes: of one image.
        resolver: from host names to IP addresses; the system's, unless given.
    """

    def __init__(
        self, settings: DownloadSettings, max_bytes: int, resolver: Resolver | None = None
    ) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._resolver = resolver
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # What follows belongs to the loop's thread.
        self._line: asyncio.Queue[_Asked]
        self._room: asyncio.Event
        self._stop: asyncio.Event
        self._waiting_bytes = 0

    def outcomes(self, targets: Sequence[Target]) -> Generator[Outcome]:
        """What came of each address, in order. The downloads begin with this call.

        The iterator has to be read to its end, or closed.
        """
        loop = self._running()
        asked: list[_Asked] = [(target, Future()) for target in targets]
        loop.call_soon_threadsafe(self._ask, asked)
        return self._taken(loop, [future for _, future in asked])

    def close(self) -> None:
        """Break off what is under way, and end the thread. It may be used again."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = self._thread = None
        if thread.is_alive():
            loop.call_soon_threadsafe(lambda: self._stop.set())
            thread.join()

    def _taken(
        self, loop: asyncio.AbstractEventLoop, futures: list[Future[Downloaded]]
    ) -> Generator[Outcome]:
        def let_go(future: Future[Downloaded]) -> None:
            if not future.cancelled() and future.exception() is None:
                with suppress(RuntimeError):  # closed meanwhile
                    loop.call_soon_threadsafe(self._let_go, len(future.result().data))

        waiting = deque(futures)
        futures.clear()
        try:
            while waiting:
                future = waiting.popleft()
                try:
                    yield future.result()
                except ImageError as exc:
                    yield exc
                finally:
                    future.add_done_callback(let_go)
        finally:
            for future in waiting:
                future.cancel()
                future.add_done_callback(let_go)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            ready: Future[asyncio.AbstractEventLoop] = Future()
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self._serve(ready)), name="attrib-download", daemon=True
            )
            self._thread.start()
            self._loop = ready.result()
        return self._loop

    async def _serve(self, ready: Future[asyncio.AbstractEventLoop]) -> None:
        self._line = asyncio.Queue()
        self._room = asyncio.Event()
        self._stop = asyncio.Event()
        self._waiting_bytes = 0
        own = SystemResolver() if self._resolver is None else None
        fetcher = Fetcher(self._settings, self._max_bytes, self._resolver or own)  # type: ignore[arg-type]
        tasks: set[asyncio.Task[None]] = set()
        starter = asyncio.create_task(self._start_in_order(fetcher, tasks))
        ready.set_result(asyncio.get_running_loop())
        try:
            await self._stop.wait()
        finally:
            starter.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(starter, *tasks, return_exceptions=True)
            while not self._line.empty():
                self._line.get_nowait()[1].cancel()
            await fetcher.close()
            if own is not None:
                own.close()

    def _ask(self, asked: list[_Asked]) -> None:
        for entry in asked:
            self._line.put_nowait(entry)

    def _let_go(self, size: int) -> None:
        self._waiting_bytes -= size
        self._room.set()

    async def _start_in_order(self, fetcher: Fetcher, tasks: set[asyncio.Task[None]]) -> None:
        while True:
            target, future = await self._line.get()
            while self._waiting_bytes > _MAX_WAITING_BYTES:
                self._room.clear()
                await self._room.wait()
            task = asyncio.create_task(self._download(fetcher, target, future))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _download(self, fetcher: Fetcher, target: Target, future: Future[Downloaded]) -> None:
        if future.cancelled():
            return
        try:
            found = await fetcher.fetch(*target)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except BaseException as exc:
            _settle(future, exc)
        else:
            self._waiting_bytes += len(found.data)
            if not _settle(future, found):
                self._let_go(len(found.data))


def _settle(future: Future[Downloaded], outcome: Downloaded | BaseException) -> bool:
    """Give a future its outcome, unless its asker has gone; whether it had not."""
    if not future.set_running_or_notify_cancel():
        return False
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return True
