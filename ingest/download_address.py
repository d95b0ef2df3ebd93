"""Which network addresses may be asked, and connections that go to the checked address only.

A name is resolved once for a connection, every address it has is checked, and the connection goes
to a checked one: a name that resolves otherwise the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, TypeAlias

import httpcore

from ingest.download_errors import TransientError
from ingest.errors import ImageError, RejectReason

__all__ = ["PinnedBackend", "Resolver", "SystemResolver", "is_public"]

Resolver: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""From (host, port) to IP addresses; raises `socket.gaierror`."""

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_NEVER_PUBLIC_V4 = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
_NEVER_PUBLIC_V6 = IPv6Network("3fff::/20")
"""Of protocols and documentation; which of these Python calls global depends on its version."""

_MAX_ADDRESSES_TRIED = 3
_LAST_CHANCE_S = 0.2
_RESOLVER_THREADS = 64


def is_public(text: str) -> bool:
    """Whether an IP address is of the public internet; False for what is no address.

    IPv6 addresses that carry an IPv4 address (mapped, 6to4, NAT64) are judged by that one.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return _is_public_v4(address)
    carried = _carried(address)
    if carried is not None:
        return _is_public_v4(carried)
    return address in _GLOBAL_UNICAST and address not in _NEVER_PUBLIC_V6 and address.is_global


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_public_v4(address: IPv4Address) -> bool:
    if address.is_multicast or address.is_reserved:
        return False
    return address.is_global and not any(address in network for network in _NEVER_PUBLIC_V4)


class SystemResolver:
    """The system's own resolver, in threads of its own: a name may take many seconds to fail."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, "attrib-dns")

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses, each once, in the system's order."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        """Let go of the threads; names still being looked up are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to addresses that were checked; TLS and Host still use the name.

    Raises:
        ImageError: the host has no public address, or none at all.
        TransientError: its name could not be looked up now.
    """

    def __init__(self, resolver: Resolver, *, allow_private: bool) -> None:
        self._resolver = resolver
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """As httpcore asks for it."""
        addresses = await self._addresses(host, port, timeout)
        for address in addresses[:-1]:
            try:
                return await self._connect(address, port, timeout, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(addresses[-1], port, timeout, socket_options)

    async def sleep(self, seconds: float) -> None:
        """As httpcore asks for it."""
        await asyncio.sleep(seconds)

    async def _connect(
        self,
        address: str,
        port: int,
        timeout_s: float | None,
        socket_options: Iterable[Any] | None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection; broken off, it leaves no socket behind that nobody closes."""
        connecting = asyncio.ensure_future(
            self._inner.connect_tcp(address, port, timeout_s, None, socket_options)
        )
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # anyio loses a socket that is connected in the moment of its cancelling.
            await asyncio.wait([connecting], timeout=_LAST_CHANCE_S)
            if connecting.done() and not connecting.cancelled() and not connecting.exception():
                await connecting.result().aclose()
            connecting.cancel()
            raise

    async def _addresses(self, host: str, port: int, timeout_s: float | None) -> list[str]:
        try:
            async with asyncio.timeout(timeout_s):
                found = await self._resolver(host, port)
        except TimeoutError as exc:
            detail = f"looking up the name {host}"
            raise TransientError(RejectReason.TIMED_OUT, detail) from exc
        except socket.gaierror as exc:
            detail = f"{host}: {exc.strerror or exc}"
            if exc.errno == socket.EAI_AGAIN:
                raise TransientError(RejectReason.NO_CONNECTION, detail) from exc
            raise ImageError(RejectReason.NO_CONNECTION, detail) from exc
        except UnicodeError as exc:
            raise ImageError(RejectReason.BAD_URL, f"{host} is no host name") from exc
        allowed = [a for a in found if self._allow_private or is_public(a)]
        if not allowed:
            shown = ", ".join(found[:_MAX_ADDRESSES_TRIED]) or "without address"
            raise ImageError(RejectReason.FORBIDDEN_ADDRESS, f"{host} is {shown}")
        return allowed[:_MAX_ADDRESSES_TRIED]
