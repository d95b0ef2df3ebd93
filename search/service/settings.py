"""What the service may cost, and who may ask it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ingest.decode import DecodeLimits
from ingest.errors import UsageError

__all__ = ["Access", "ServiceSettings", "access_from"]

_LIMITS = DecodeLimits(max_bytes=32 * 1024 * 1024, max_pixels=50_000_000)
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        read_keys: any of them allows reading; without any, reading is open.
        write_keys: any of them allows takedowns, and reading; without any, there are none.
        origins: other origins whose pages may ask (CORS); none unless set.
    """

    read_keys: tuple[str, ...] = field(default=(), repr=False)
    write_keys: tuple[str, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServiceSettings:
    """How the service listens and what one request, and all of them, may take.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        access: who may ask.
        examples: a folder of generated images that the page offers.
        limits: of one image.
        max_images: of one batch.
        max_batch_bytes: of a batch's whole body.
        max_k: rows of an answer.
        max_in_flight: requests for answers at once; more are told to come again.
        max_bytes_in_flight: bytes of their bodies together; a request of more goes alone.
        max_pixels_in_flight: of the images that are decoded at once; a larger one goes alone.
        embed_batch: images that the model takes at once.
        embed_wait_s: how long the model waits for more images than it has.
        search_batch: queries that the index takes at once.
        timeout_s: of one request, its upload included; of a batch, for each of its images.
        kept_bytes: of answers that are kept for their links, with their query images.
        show_paths: absolute paths of training images to all who may read, not only to those
            with a write key.
        allow_private_urls: also fetch query images from addresses that are not public.

    Raises:
        UsageError: a value that cannot be meant.
    """

    host: str = "127.0.0.1"
    port: int = 8723
    access: Access = Access()
    examples: Path | None = None
    limits: DecodeLimits = _LIMITS
    max_images: int = 256
    max_batch_bytes: int = 256 * 1024 * 1024
    max_k: int = 1000
    max_in_flight: int = 64
    max_bytes_in_flight: int = 512 * 1024 * 1024
    max_pixels_in_flight: int = 64_000_000
    embed_batch: int = 32
    embed_wait_s: float = 0.003
    search_batch: int = 32
    timeout_s: float = 30.0
    kept_bytes: int = 128 * 1024 * 1024
    show_paths: bool = False
    allow_private_urls: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port {self.port} is not within 0 to 65535")
        if self.max_in_flight < 1 or self.embed_batch < 1 or self.search_batch < 1:
            raise UsageError("a service needs at least one request, image and query at a time")
        if not 0 < self.timeout_s <= 3600:
            raise UsageError(f"a timeout of {self.timeout_s:g} s is not within 0 to 3600 s")

    @property
    def host_names(self) -> tuple[str, ...]:
        """Names that a request may call this service by; () for any.

        One that listens on this machine alone answers to no other name, so that a web page cannot
        read it through a name of its own that resolves to 127.0.0.1 (DNS rebinding).
        """
        if self.host == "localhost":
            return _LOCAL_NAMES
        try:
            is_local = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            is_local = False
        return (*_LOCAL_NAMES, self.host) if is_local else ()


def access_from(environment: Mapping[str, str]) -> Access:
    """ATTRIB_READ_KEYS, ATTRIB_WRITE_KEYS and ATTRIB_CORS_ORIGINS, each separated by commas.

    Raises:
        UsageError: a key that no header can carry.
    """

    def listed(name: str) -> tuple[str, ...]:
        return tuple(filter(None, (part.strip() for part in environment.get(name, "").split(","))))

    access = Access(
        listed("ATTRIB_READ_KEYS"), listed("ATTRIB_WRITE_KEYS"), listed("ATTRIB_CORS_ORIGINS")
    )
    if not all(key.isascii() and key.isprintable() for key in access.read_keys + access.write_keys):
        raise UsageError("keys go into an HTTP header: they must be plain ASCII")
    return access
