"""Who may ask what, and the headers that keep browsers from being turned against the service."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from starlette.requests import Request

from search.service.problems import Problem
from search.service.settings import Access

__all__ = [
    "CONTENT_SECURITY_POLICY",
    "SECURITY_HEADERS",
    "check_read",
    "check_write",
    "has_write_key",
]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def check_read(request: Request, access: Access) -> None:
    """Raises `Problem` (401) unless reading is open or the request has a key."""
    if not access.read_keys:
        return
    if not _is_among(_key(request), (*access.read_keys, *access.write_keys)):
        raise _unauthorized("this service asks for a key")


def check_write(request: Request, access: Access) -> None:
    """Raises `Problem` (401 or 403) unless the request has a write key."""
    key = _key(request)
    if not access.write_keys:
        raise Problem(403, "no-takedowns", "takedowns are off: no ATTRIB_WRITE_KEYS are set")
    if _is_among(key, access.write_keys):
        return
    if key and _is_among(key, access.read_keys):
        raise Problem(403, "read-only-key", "this key is for reading; takedowns need a write key")
    raise _unauthorized("takedowns need a write key")


def has_write_key(request: Request, access: Access) -> bool:
    """Whether the request has a write key."""
    return _is_among(_key(request), access.write_keys)


def _key(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _is_among(key: str, keys: Iterable[str]) -> bool:
    """Takes as long whichever of the keys it is, and however much of it is right."""
    given = key.encode("utf-8", "surrogateescape")
    found = False
    for known in keys:
        found |= hmac.compare_digest(given, known.encode())
    return found


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "key-needed", detail, headers={"WWW-Authenticate": "Bearer"})
