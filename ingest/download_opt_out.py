"""What an answer's headers say against the use of an image for machine learning.

Two conventions: ``X-Robots-Tag`` with the directives that img2dataset respects, for all or for a
named program, and ``tdm-reservation: 1`` of the TDM Reservation Protocol (W3C community report).
"""

from __future__ import annotations

from collections.abc import Iterable

from ingest.download_settings import ROBOTS_NAME

__all__ = ["opt_out_of", "withheld_by"]

_WITHHOLDING = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""The directives; ``none`` is the short form of ``noindex, nofollow``."""

_WITH_VALUE = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
"""Directives with a colon of their own, which names no program."""


def opt_out_of(headers: Iterable[tuple[str, str]], name: str = ROBOTS_NAME) -> str:
    """The header that withholds the image, as ``name: value``; '' where none does.

    Args:
        headers: all (name, value) of an answer; a name may come more than once.
        name: of this program, as a directive may be addressed to it.
    """
    for header, value in headers:
        match header.casefold():
            case "x-robots-tag" if withheld_by(value, name):
                return f"X-Robots-Tag: {' '.join(value.split())[:200]}"
            case "tdm-reservation" if value.strip() == "1":
                return "tdm-reservation: 1"
    return ""


def withheld_by(value: str, name: str = ROBOTS_NAME) -> bool:
    """Whether an ``X-Robots-Tag`` withholds the image from the program `name`.

    A directive holds for the program named last before it in the same header, for all without one:
    ``otherbot: noindex, noai`` is addressed to otherbot alone.
    """
    scope = ""
    for part in value.split(","):
        head, colon, rest = part.partition(":")
        directive = part
        if colon and head.strip().casefold() not in _WITH_VALUE:
            scope, directive = head.strip().casefold(), rest
        if scope in ("", "*", name.casefold()) and directive.strip().casefold() in _WITHHOLDING:
            return True
    return False
