"""Each host's turn: few requests at once, pauses it asked for, and none once it seems dead."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ingest.download_errors import LeftAloneError
from ingest.errors import ImageError

__all__ = ["Hosts"]

GIVE_UP_AFTER = 8
"""Failures in a row, of requests that got no answer at all, after which a host is left alone."""

_FORGIVE_S = 120.0
_MAX_REMEMBERED = 50_000


@dataclass
class _Host:
    turns: asyncio.Semaphore
    users: int = 0
    failures: int = 0
    last: ImageError | None = None
    not_before: float = 0.0


class Hosts:
    """The hosts asked lately; those forgotten first are those longest unused."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn with a host, and hold it.

        Raises:
            LeftAloneError: the host gave no answer many times in a row.
        """
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(asyncio.Semaphore(self._per_host))
        self._hosts.move_to_end(name)
        host.users += 1
        try:
            self._refuse_dead(host)
            async with host.turns:
                self._refuse_dead(host)
                pause_s = host.not_before - _now()
                if host.failures < GIVE_UP_AFTER and pause_s > 0:
                    await asyncio.sleep(pause_s)
                yield
        finally:
            host.users -= 1
            self._forget()

    def answered(self, name: str) -> None:
        """The host gave an answer, of whatever kind."""
        if host := self._hosts.get(name):
            host.failures = 0

    def failed(self, name: str, why: ImageError) -> None:
        """The host gave no answer."""
        if host := self._hosts.get(name):
            host.failures += 1
            host.last = why
            if host.failures >= GIVE_UP_AFTER:
                host.not_before = _now() + _FORGIVE_S

    def pause(self, name: str, seconds: float) -> None:
        """The host asked not to be asked for so long."""
        if host := self._hosts.get(name):
            host.not_before = max(host.not_before, _now() + seconds)

    def leave(self, name: str, why: ImageError, seconds: float) -> None:
        """The host asked for a pause so long that it is left alone until then."""
        if host := self._hosts.get(name):
            host.failures = GIVE_UP_AFTER
            host.last = why
            host.not_before = _now() + seconds

    @staticmethod
    def _refuse_dead(host: _Host) -> None:
        if host.failures < GIVE_UP_AFTER or host.last is None:
            return
        if _now() >= host.not_before:
            host.failures = GIVE_UP_AFTER - 1  # one more chance
            return
        raise LeftAloneError(host.last.reason, f"not asked again, last answer: {host.last.detail}")

    def _forget(self) -> None:
        while len(self._hosts) > _MAX_REMEMBERED:
            name, host = next(iter(self._hosts.items()))
            if host.users:
                self._hosts.move_to_end(name)
                return
            del self._hosts[name]


def _now() -> float:
    return asyncio.get_running_loop().time()
