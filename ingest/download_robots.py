"""robots.txt of each host, asked once and remembered (RFC 9309)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ingest.download_settings import ROBOTS_NAME
from ingest.errors import ImageError, RejectReason

if TYPE_CHECKING:
    import httpx
    from protego import Protego

__all__ = ["MAX_ROBOTS_BYTES", "Robots"]

MAX_ROBOTS_BYTES = 500 * 1024
"""What RFC 9309 asks a reader to take; the rest of a longer file is not looked at."""

_MAX_HOSTS = 4096
_MAX_BYTES_HELD = 64 * 1024 * 1024

Ask: TypeAlias = "Callable[[httpx.URL], Awaitable[tuple[int, bytes]]]"
"""Fetches an address, redirects followed: the last status and the body."""


@dataclass(frozen=True)
class _Rules:
    """`parsed` None: everything is allowed; `closed`: nothing is, and why."""

    parsed: Protego | None = None
    closed: str = ""
    size: int = 0


class Robots:
    """Rules of the hosts asked lately."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._rules: OrderedDict[str, asyncio.Task[_Rules]] = OrderedDict()
        self._held = 0

    async def check(self, url: httpx.URL) -> None:
        """Nothing, where `url` may be fetched.

        Raises:
            ImageError: robots.txt forbids it, or cannot be had because of the server, which counts
                as forbidding everything.
        """
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        task = self._rules.get(origin)
        if task is None:
            task = asyncio.create_task(self._fetch(url.join("/robots.txt")))
            self._rules[origin] = task
            task.add_done_callback(lambda done: self._settle(origin, done))
        self._rules.move_to_end(origin)
        # Shielded: one asker that is cancelled must not cost the others their answer.
        rules = await asyncio.shield(task)
        if rules.closed:
            raise ImageError(RejectReason.SERVER_ERROR, rules.closed)
        if rules.parsed is not None and not rules.parsed.can_fetch(str(url), ROBOTS_NAME):
            raise ImageError(RejectReason.OPTED_OUT, f"robots.txt of {url.host}")

    async def _fetch(self, address: httpx.URL) -> _Rules:
        from protego import Protego

        status, body = await self._ask(address)
        if status == 429 or status >= 500:
            return _Rules(closed=f"robots.txt answered {status}: nothing may be fetched until then")
        if not 200 <= status < 300:
            return _Rules()
        text = body.decode("utf-8-sig", "replace")
        try:
            return _Rules(Protego.parse(text), size=len(text))
        except Exception:  # a file that no parser takes holds no rule
            return _Rules()

    def _settle(self, origin: str, task: asyncio.Task[_Rules]) -> None:
        """Failures are not remembered: the next image asks again."""
        if task.cancelled() or task.exception() is not None:
            if self._rules.get(origin) is task:
                del self._rules[origin]
            return
        self._held += task.result().size
        while len(self._rules) > _MAX_HOSTS or self._held > _MAX_BYTES_HELD:
            name, oldest = next(iter(self._rules.items()))
            if not oldest.done():
                break
            del self._rules[name]
            if not oldest.cancelled() and oldest.exception() is None:
                self._held -= oldest.result().size
