"""Connections of the download: a small pool a host, since httpcore's one pool for all of them takes
time with the square of its connections at every request."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

import httpcore
import httpx

from ingest.download_address import PinnedBackend
from ingest.download_settings import DownloadSettings

__all__ = ["HostPools"]

_Origin: TypeAlias = tuple[str, str, int | None]

_KEEPALIVE_S = 15.0


class HostPools(httpx.AsyncBaseTransport):
    """Routes each request to the pool of its host.

    Pools beyond twice the number of requests at a time are closed, those longest unused first.
    """

    def __init__(self, settings: DownloadSettings, backend: PinnedBackend) -> None:
        self._per_host = settings.per_host
        self._most = max(64, 2 * settings.concurrency)
        self._backend = backend
        self._ssl = httpx.create_ssl_context(trust_env=False)
        self._pools: OrderedDict[_Origin, _Pool] = OrderedDict()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx asks for it."""
        origin = (request.url.scheme, request.url.host, request.url.port)
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = _Pool(self._ssl, self._per_host, self._backend)
        self._pools.move_to_end(origin)
        await self._close_unused()
        return await pool.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        pools, self._pools = self._pools, OrderedDict()
        for pool in pools.values():
            await pool.aclose()

    async def _close_unused(self) -> None:
        while len(self._pools) > self._most:
            origin, oldest = next(iter(self._pools.items()))
            if oldest.is_busy:
                self._pools.move_to_end(origin)
                return
            del self._pools[origin]
            await oldest.aclose()


class _Pool(httpx.AsyncHTTPTransport):
    def __init__(self, ssl: object, per_host: int, backend: PinnedBackend) -> None:
        super().__init__(verify=ssl, trust_env=False)  # type: ignore[arg-type]
        # httpx has no argument for httpcore's network backend, which is where an address is
        # checked and the connection made in one step.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl,  # type: ignore[arg-type]
            max_connections=per_host + 1,  # and robots.txt
            keepalive_expiry=_KEEPALIVE_S,
            http2=True,
            network_backend=backend,
        )

    @property
    def is_busy(self) -> bool:
        """Whether a connection is being opened or used."""
        connections = self._pool.connections
        return not all(one.is_idle() or one.is_closed() for one in connections)
