"""Where files are: on this machine, or in a store (S3, Google Cloud, a web server) by URL.

A path of this machine stays a `pathlib.Path`; a URL becomes a `UPath`, which has the same methods.
How a store's files are read and written is in `ingest.stored`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

from ingest.errors import UsageError
from ingest.printable import printable

if TYPE_CHECKING:
    from typing_extensions import TypeIs
    from upath import UPath

__all__ = [
    "FileState",
    "Location",
    "file_name",
    "is_on_the_web",
    "is_remote",
    "is_url",
    "location",
    "origin_of",
    "shown",
    "store_of",
]

Location: TypeAlias = "Path | UPath"
"""Where a file or folder is."""

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Store:
    """A kind of store: the package that speaks to it, and how that is installed."""

    package: str
    install: str


_STORES = {
    "s3": _Store("s3fs", "pip install 'attrib[s3]'"),
    "gs": _Store("gcsfs", "pip install 'attrib[gcs]'"),
    "gcs": _Store("gcsfs", "pip install 'attrib[gcs]'"),
    "http": _Store("aiohttp", "pip install aiohttp"),
    "https": _Store("aiohttp", "pip install aiohttp"),
    "memory": _Store("fsspec", "pip install fsspec"),
}


class FileState(NamedTuple):
    """What tells one state of a file from another.

    Attributes:
        size: in bytes.
        version: changes with the content: the modification time in ns on a disk, the ETag (or what
            else the store has) as text.
        mtime_ns: modification time, 0 where the store does not tell.
    """

    size: int
    version: int | str
    mtime_ns: int

    @property
    def signature(self) -> str:
        """Both in a few characters."""
        version = f"{self.version:x}" if isinstance(self.version, int) else self.version
        return f"{self.size:x}.{version}"


def is_url(text: str) -> bool:
    """Whether a name is a URL rather than a place on this machine, which ``file://`` is, too."""
    match = _URL.match(text)
    return match is not None and match["scheme"].lower() != "file"


def location(text: str) -> Location:
    """The place that a path or a URL names. Nothing is asked of a disk or a store.

    `shown` of a location of S3, Google Cloud or this machine gives it back.

    Raises:
        UsageError: a URL of no store that is known, or whose package is not installed.
    """
    match = _URL.match(text)
    if match is None:
        return Path(text)
    scheme = match["scheme"].lower()
    if scheme == "file":
        return Path(unquote(urlsplit(text).path))
    store = _STORES.get(scheme)
    if store is None:
        raise UsageError(
            f"{text}: {scheme}:// is no storage that attrib reads; "
            "name a local path, or a URL that begins with s3://, gs:// or https://"
        )
    if not match["rest"].partition("/")[0]:
        raise UsageError(f"{text} names no {'host' if scheme.startswith('http') else 'bucket'}")
    if not _is_installed(store.package):
        raise UsageError(f"{scheme}:// needs {store.package}: {store.install}")
    from upath import UPath

    at: UPath = UPath(f"{scheme}://{match['rest']}", **_options(scheme))
    return at


def is_remote(at: Location) -> TypeIs[UPath]:
    """Whether it is in a store rather than on this machine's disks."""
    return not isinstance(at, Path)


def is_on_the_web(at: Location) -> bool:
    """Whether it is on a plain web server, which can neither be listed nor written to."""
    return is_remote(at) and at.protocol in ("http", "https")


def store_of(at: UPath) -> str:
    """The bucket or host, as a URL: what is to blame when nothing there can be reached."""
    parts = urlsplit(str(at))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def shown(at: Location) -> str:
    """As people, the ledger and payloads get to see it.

    Of a web address without what signs it, which is secret and changes from day to day.
    """
    if not is_on_the_web(at):
        return str(at)
    parts = urlsplit(str(at))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def origin_of(at: Location) -> str:
    """A file's place as the ledger keeps it: absolute, so that it is the same from any folder."""
    return printable(shown(at) if is_remote(at) else os.path.abspath(at))  # noqa: PTH100 (resolve would ask the disk)


def file_name(at: Location) -> str:
    """The last part of its path; of a web address without query, and decoded."""
    if not is_on_the_web(at):
        return at.name
    return unquote(urlsplit(str(at)).path.rpartition("/")[2])


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _options(scheme: str) -> dict[str, Any]:
    if scheme in ("http", "https"):
        import aiohttp

        # fsspec's own limit is five minutes for all of a file, too short for a large tar.
        patience = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)
        return {"client_kwargs": {"timeout": patience, "trust_env": True}}
    if scheme == "memory":
        return {}
    # What was listed a minute ago is not what is there now.
    return {"use_listings_cache": False}
