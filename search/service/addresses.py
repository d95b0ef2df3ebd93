"""Query images by URL: from public addresses only, every redirect checked anew."""

from __future__ import annotations

from ingest.decode import DecodeLimits
from ingest.download_address import SystemResolver
from ingest.download_fetch import Fetcher
from ingest.download_settings import DownloadSettings
from ingest.errors import ImageError, RejectReason

__all__ = ["Addresses"]

_TIMEOUT_S = 10.0


class Addresses:
    """Fetches single images that a person asks about. Lives in one event loop.

    What robots.txt and its like withhold is for crawlers and for training: a person who asks about
    one image is neither, and it is forgotten after the answer.
    """

    def __init__(self, limits: DecodeLimits, *, allow_private: bool) -> None:
        settings = DownloadSettings(
            concurrency=16,
            timeout_s=_TIMEOUT_S,
            retries=0,
            ignore_opt_out=True,
            allow_private=allow_private,
        )
        self._resolver = SystemResolver()
        self._fetcher = Fetcher(settings, limits.max_bytes, self._resolver)

    async def read(self, url: str) -> bytes:
        """The bytes at an address.

        Raises:
            ImageError: they cannot be had; why.
        """
        try:
            return (await self._fetcher.fetch(url)).data
        except ImageError as exc:
            if exc.reason is not RejectReason.FORBIDDEN_ADDRESS:
                raise
            # Which address a name has here is what an asker from outside is not to learn.
            raise ImageError(exc.reason, "only those of the public internet are fetched") from exc

    async def close(self) -> None:
        """Close all connections."""
        await self._fetcher.close()
        self._resolver.close()
