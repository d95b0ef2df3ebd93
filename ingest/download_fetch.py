"""One address to the bytes of one image, or why not; the edge where httpx errors enter."""

from __future__ import annotations

import asyncio
import hashlib
import random
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from ingest.download_address import PinnedBackend, Resolver
from ingest.download_errors import NO_ANSWER, TransientError
from ingest.download_hosts import Hosts
from ingest.download_opt_out import opt_out_of
from ingest.download_robots import MAX_ROBOTS_BYTES, Robots
from ingest.download_settings import DownloadSettings
from ingest.errors import ImageError, RejectReason

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

__all__ = ["Downloaded", "Fetcher", "checked_url", "retry_after_s"]

_CONNECT_TIMEOUT_S = 10.0
_LONGEST_PAUSE_S = 60.0
_FIRST_BACKOFF_S = 0.5
_MAX_URL_CHARS = 8192
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEAD = frozenset({404, 410})


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The bytes of an answer, and what it says they are ('' where it does not say)."""

    data: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """Of one request: a body, or (`location`) a redirect."""

    status: int
    body: bytes = b""
    content_type: str = ""
    location: str = ""


class Fetcher:
    """Downloads addresses under the settings. Lives in one event loop.

    Args:
        settings: limits and manners.
        max_bytes: of one image; a larger one is given up while it comes in.
        resolver: from host names to IP addresses.
    """

    def __init__(self, settings: DownloadSettings, max_bytes: int, resolver: Resolver) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._client = _client(settings, resolver)
        self._hosts = Hosts(settings.per_host)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._robots = Robots(self._ask_robots)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def fetch(self, url: str, sha256: str = "") -> Downloaded:
        """The bytes at an address.

        Args:
            url: as listed.
            sha256: of the bytes as listed, '' where it is not known.

        Raises:
            ImageError: they cannot be had; `reason` and `detail` say why.
        """
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

        address = checked_url(url)
        tries = AsyncRetrying(
            stop=stop_after_attempt(1 + self._settings.retries),
            wait=_pause_s,
            retry=retry_if_exception_type(TransientError),
            reraise=True,
        )
        found: _Answer = await tries(self._try, address)
        if not found.body:
            raise ImageError(RejectReason.EMPTY)
        if sha256 and hashlib.sha256(found.body).hexdigest() != sha256.lower():
            raise ImageError(RejectReason.OTHER_CONTENT, f"its SHA-256 is not {sha256.lower()}")
        return Downloaded(found.body, found.content_type)

    async def _try(self, address: httpx.URL) -> _Answer:
        return await self._follow(address, for_robots=False)

    async def _ask_robots(self, address: httpx.URL) -> tuple[int, bytes]:
        try:
            answer = await self._follow(address, for_robots=True)
        except ImageError as exc:
            if exc.reason is RejectReason.TOO_MANY_REDIRECTS:
                return 404, b""  # as RFC 9309 has it
            raise
        return answer.status, answer.body

    async def _follow(self, address: httpx.URL, *, for_robots: bool) -> _Answer:
        """Ask an address and those it redirects to, each as if it had been listed itself."""
        left_s = self._settings.timeout_s
        now = asyncio.get_running_loop().time
        for _ in range(1 + self._settings.max_redirects):
            if not for_robots and not self._settings.ignore_opt_out:
                await self._robots.check(address)
            async with self._hosts.turn(address.host), self._slots:
                began = now()
                answer = await self._ask(address, left_s, for_robots)
                left_s -= now() - began
            if not answer.location:
                return answer
            address = checked_url(answer.location, base=address)
        limit = self._settings.max_redirects
        raise ImageError(RejectReason.TOO_MANY_REDIRECTS, f"more than {limit}")

    async def _ask(self, address: httpx.URL, left_s: float, for_robots: bool) -> _Answer:
        """One request, and what it tells of its host."""
        host = address.host
        try:
            answer = await self._request(address, left_s, for_robots)
        except ImageError as exc:
            if exc.reason in NO_ANSWER:
                self._hosts.failed(host, exc)
                raise
            self._hosts.answered(host)
            after_s = exc.after_s if isinstance(exc, TransientError) else 0
            if after_s > _LONGEST_PAUSE_S:
                final = ImageError(exc.reason, f"{exc.detail}, again in {after_s:.0f} s")
                self._hosts.leave(host, final, after_s)
                raise final from exc
            if after_s:
                self._hosts.pause(host, after_s)
            raise
        self._hosts.answered(host)
        return answer

    async def _request(self, address: httpx.URL, left_s: float, for_robots: bool) -> _Answer:
        """One request, its errors translated."""
        import httpx

        try:
            async with (
                asyncio.timeout(max(left_s, 0.001)),
                self._client.stream("GET", address) as response,
            ):
                location = response.headers.get("location", "")
                if response.status_code in _REDIRECTS and location:
                    return _Answer(response.status_code, location=location)
                if for_robots:
                    body = await _body(response, MAX_ROBOTS_BYTES, cut=True)
                    return _Answer(response.status_code, body)
                kind = self._read_head(response)
                body = await _body(response, self._max_bytes, cut=False)
                return _Answer(response.status_code, body, kind)
        except (TimeoutError, httpx.TimeoutException) as exc:
            limit = self._settings.timeout_s
            raise TransientError(RejectReason.TIMED_OUT, f"after {limit:g} s") from exc
        except ImageError:
            raise
        except httpx.ConnectError as exc:
            detail = str(exc) or "refused"
            if "CERTIFICATE_VERIFY_FAILED" in detail:
                raise ImageError(RejectReason.NO_CONNECTION, f"bad certificate: {detail}") from exc
            raise TransientError(RejectReason.NO_CONNECTION, detail) from exc
        except httpx.RemoteProtocolError as exc:
            if "complete message body" in str(exc):
                raise TransientError(RejectReason.TRUNCATED, "the connection ended early") from exc
            raise TransientError(RejectReason.SERVER_ERROR, f"no proper answer: {exc}") from exc
        except httpx.NetworkError as exc:
            detail = f"the connection broke {exc}".strip()
            raise TransientError(RejectReason.NO_CONNECTION, detail) from exc
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as exc:
            raise ImageError(RejectReason.BAD_URL, str(exc)) from exc
        except Exception as exc:  # one odd answer among billions must not stop the others
            detail = f"{type(exc).__name__}: {exc}"
            raise ImageError(RejectReason.SERVER_ERROR, detail) from exc

    def _read_head(self, response: httpx.Response) -> str:
        """The content type of an answer that may hold the image, from its head.

        Raises:
            ImageError: it does not, or is withheld.
        """
        _check_status(response)
        if not self._settings.ignore_opt_out:
            withheld = opt_out_of(response.headers.multi_items())
            if withheld:
                raise ImageError(RejectReason.OPTED_OUT, withheld)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and not kind.startswith("image/") and not kind.endswith("octet-stream"):
            raise ImageError(RejectReason.NOT_AN_IMAGE, f"content type {kind[:100]}")
        return str(kind)


def checked_url(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """An http or https address, of a list or (with `base`) of a redirect.

    Raises:
        ImageError: anything else, or an address with a user name or password in it.
    """
    import httpx

    if not text or len(text) > _MAX_URL_CHARS:
        raise ImageError(RejectReason.BAD_URL, f"{len(text)} characters")
    try:
        url = httpx.URL(text) if base is None else base.join(text)
        host, port = url.host, url.port
    except (httpx.InvalidURL, ValueError, UnicodeError) as exc:
        raise ImageError(RejectReason.BAD_URL, str(exc)) from exc
    if url.scheme not in ("http", "https"):
        raise ImageError(RejectReason.BAD_URL, f"scheme {url.scheme[:20] or 'missing'}")
    if not host:
        raise ImageError(RejectReason.BAD_URL, "no host")
    if port is not None and not 0 < port < 65536:
        raise ImageError(RejectReason.BAD_URL, f"port {port}")
    if url.userinfo:
        raise ImageError(RejectReason.BAD_URL, "holds a user name or password")
    return url


def retry_after_s(value: str) -> float:
    """The seconds that a ``Retry-After`` asks for: a number or a date; 0 for what is neither."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in (200, 203):
        return
    detail = f"HTTP {status}"
    if status in _DEAD:
        raise ImageError(RejectReason.DEAD_LINK, detail)
    after_s = retry_after_s(response.headers.get("retry-after", ""))
    if status == 429:
        raise TransientError(RejectReason.TOO_MANY_REQUESTS, detail, after_s=after_s)
    if status >= 500:
        raise TransientError(RejectReason.SERVER_ERROR, detail, after_s=after_s)
    if status >= 400:
        raise ImageError(RejectReason.REFUSED, detail)
    raise ImageError(RejectReason.SERVER_ERROR, f"{detail} where an image was asked for")


async def _body(response: httpx.Response, max_bytes: int, *, cut: bool) -> bytes:
    """The body, never more than `max_bytes` of it; a longer one is cut there, or refused."""
    announced = response.headers.get("content-length", "")
    if not cut and announced.isascii() and announced.isdigit() and len(announced) < 20:
        _check_size(int(announced), max_bytes)
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > max_bytes:
            if not cut:
                _check_size(len(data), max_bytes)
            break
    return _unpacked(bytes(data[:max_bytes]), response, max_bytes, cut=cut)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        detail = f"at least {size} bytes, the limit is {max_bytes}"
        raise ImageError(RejectReason.TOO_MANY_BYTES, detail)


def _unpacked(data: bytes, response: httpx.Response, max_bytes: int, *, cut: bool) -> bytes:
    """The body as it was before the server packed it, which it was asked not to do.

    Not by httpx, which would unpack any depth of packing to any size.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return data
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ImageError(RejectReason.SERVER_ERROR, f"content encoding {encoding[:50]} unasked")
    unpack = zlib.decompressobj(wbits=47 if encoding != "deflate" else zlib.MAX_WBITS)
    try:
        unpacked = unpack.decompress(data, max_bytes + 1)
    except zlib.error as exc:
        raise ImageError(RejectReason.BROKEN, f"content encoding {encoding}: {exc}") from exc
    if not cut:
        _check_size(len(unpacked), max_bytes)
    return unpacked[:max_bytes]


def _pause_s(state: RetryCallState) -> float:
    """Seconds before the next try: what the server asked for, or longer each time, with jitter."""
    asked_s = 0.0
    if state.outcome is not None and isinstance(exc := state.outcome.exception(), TransientError):
        asked_s = exc.after_s
    backoff_s: float = _FIRST_BACKOFF_S * 2 ** (state.attempt_number - 1)
    return max(asked_s, backoff_s * random.uniform(0.5, 1.5))


def _client(settings: DownloadSettings, resolver: Resolver) -> httpx.AsyncClient:
    from http.cookiejar import DefaultCookiePolicy

    import httpx

    from ingest.download_pools import HostPools

    backend = PinnedBackend(resolver, allow_private=settings.allow_private)
    client = httpx.AsyncClient(
        transport=HostPools(settings, backend),
        trust_env=False,  # a proxy would look up the names itself, unchecked
        follow_redirects=False,
        timeout=httpx.Timeout(
            settings.timeout_s, connect=min(_CONNECT_TIMEOUT_S, settings.timeout_s), pool=None
        ),
        headers={
            "User-Agent": settings.user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
        },
    )
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return client
