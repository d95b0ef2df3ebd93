"""How images are downloaded: what one host, one address and one answer may cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingest.errors import UsageError

__all__ = ["ROBOTS_NAME", "DownloadSettings"]

ROBOTS_NAME = "attrib"
"""What robots.txt and X-Robots-Tag call this program."""


@dataclass(frozen=True)
class DownloadSettings:
    """Limits and manners of the download.

    Attributes:
        concurrency: requests in flight at once.
        per_host: of these, to one host.
        timeout_s: for one try of one address, its redirects included, waiting for a turn not.
        retries: further tries after a failure that may pass: no connection, timed out, 5xx, 429.
        max_redirects: followed for one address.
        ignore_opt_out: fetch what robots.txt, X-Robots-Tag or a TDM reservation withhold; the
            records of such a run say so.
        allow_private: also from addresses that are not public, for servers of one's own.
        contact: an address (mail or web) that goes into the User-Agent, for those who run the
            servers.
        keep_images: a folder for WebDataset tars of what was downloaded.

    Raises:
        UsageError: a value that cannot be meant.
    """

    concurrency: int = 128
    per_host: int = 4
    timeout_s: float = 20.0
    retries: int = 2
    max_redirects: int = 5
    ignore_opt_out: bool = False
    allow_private: bool = False
    contact: str = ""
    keep_images: Path | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.per_host < 1:
            raise UsageError("a download needs at least one request at a time")
        if not 0 < self.timeout_s <= 3600:
            raise UsageError(f"a timeout of {self.timeout_s} s is not within 0 to 3600 s")
        if not (self.contact.isascii() and self.contact.isprintable()):
            raise UsageError("the contact goes into an HTTP header: plain ASCII, on one line")

    @property
    def user_agent(self) -> str:
        """The User-Agent header."""
        contact = f"; +{self.contact}" if self.contact else ""
        return f"{ROBOTS_NAME}/1 (attribution of generated images to training images{contact})"
