"""What can go wrong with a store: what is tried again, and what is said of the rest.

Each store's client has exceptions of its own, most of them no OSError: they are told apart here, by
what they carry, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ingest.errors import StorageError
from ingest.printable import printable
from ingest.storage import is_on_the_web, shown, store_of

if TYPE_CHECKING:
    from upath import UPath

__all__ = ["MissingError", "asked", "failed"]

_TRIES = 5
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST = 200  # characters of a store's own words
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
}
_ANONYMOUS = {"s3": "FSSPEC_S3_ANON=true", "gs": "FSSPEC_GS_TOKEN=anon"}

_T = TypeVar("_T")


class MissingError(StorageError):
    """The store was reached, and has no such file, folder or bucket."""


def asked(at: UPath, call: Callable[[], _T], *, tries: int = _TRIES) -> _T:
    """What `call` returns, called again after a pause where the store was only busy or far away.

    Raises:
        MissingError: there is no such file.
        StorageError: the store refuses, or cannot be reached.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt
    from tenacity.wait import wait_exponential, wait_random

    again = Retrying(
        retry=retry_if_exception(_may_pass),
        # S3's and Google's own clients have tried several times by then.
        stop=stop_after_attempt(tries if is_on_the_web(at) else min(tries, 2)),
        wait=wait_exponential(multiplier=0.2, max=5) + wait_random(0, 0.2),
        reraise=True,
    )
    try:
        return again(call)
    except StorageError:
        raise
    except Exception as exc:  # of any client: see above
        raise failed(at, exc) from exc


def failed(at: UPath, exc: Exception) -> StorageError:
    """A client's exception in one line that says what is wrong and what to do."""
    name, real = printable(shown(at)), _real(exc)
    if isinstance(real, StorageError):
        return real
    status = _status(real)
    if isinstance(real, FileNotFoundError) or status in (404, 410):
        if "bucket does not exist" in str(real).lower():
            return MissingError(f"no such bucket: {printable(store_of(at))}")
        return MissingError(f"no such file or folder: {name}")
    why = _words(real)
    if type(real).__name__ in ("NoCredentialsError", "DefaultCredentialsError"):
        anonymous = _ANONYMOUS.get(at.protocol)
        return StorageError(
            f"no credentials for {name}: set {_CREDENTIALS.get(at.protocol, 'them')}"
            + (f"; of a public bucket, {anonymous}" if anonymous else "")
        )
    if isinstance(real, PermissionError) or status in (401, 403):
        which = _CREDENTIALS.get(at.protocol)
        return StorageError(
            f"no access to {name} ({why}); check "
            + (f"the credentials ({which})" if which else "that it may be read from here")
        )
    if type(real).__name__ == "FileExpired":
        return StorageError(f"{name} changed while it was read; run the same command again")
    if _may_pass(real):
        return StorageError(
            f"cannot reach {name} ({why}); the same command goes on when that is mended"
        )
    return StorageError(f"{name} cannot be used ({why})")


def _may_pass(exc: BaseException) -> bool:
    """Whether the same call may do better in a moment."""
    exc = _real(exc)
    if isinstance(exc, StorageError | FileNotFoundError | PermissionError | ValueError | TypeError):
        return False
    status = _status(exc)
    if status is not None:
        return status in _BUSY
    name = type(exc).__name__
    return name not in (
        "NoCredentialsError",
        "DefaultCredentialsError",
        "FileExpired",
        "InvalidURL",
        "NonHttpUrlClientError",
        "IsADirectoryError",
        "NotADirectoryError",
        "ParamValidationError",
    )


def _real(exc: BaseException) -> BaseException:
    """fsspec calls whatever befalls a web address a missing file; its cause says what it was."""
    cause = exc.__cause__
    if isinstance(exc, FileNotFoundError) and isinstance(cause, Exception):
        status = _status(cause)
        if status is not None or not isinstance(cause, OSError) or "aiohttp" in _module(cause):
            return exc if status == 404 or "botocore" in _module(cause) else cause
    return exc


def _module(exc: BaseException) -> str:
    return type(exc).__module__


def _status(exc: BaseException) -> int | None:
    """The HTTP status that an exception carries."""
    status = getattr(exc, "status", None) or getattr(exc, "code", None)
    try:
        return int(status) if status is not None else None
    except (TypeError, ValueError):
        return None


def _words(exc: BaseException) -> str:
    status = _status(exc)
    text = " ".join(printable(str(exc)).split()) or type(exc).__name__
    if status is not None and isinstance(message := getattr(exc, "message", None), str):
        text = f"{status} {message}".strip()
    return text[:_LONGEST]
