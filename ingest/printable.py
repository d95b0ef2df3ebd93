"""File names as text that any store takes."""

from __future__ import annotations

__all__ = ["printable"]


def printable(name: str) -> str:
    r"""A file name as text that any store takes: bytes that are not UTF-8 become ``\xff``.

    Python holds such bytes as lone surrogates, which UTF-8 cannot hold; NUL separates the parts of
    an identity and becomes ``\x00``.
    """
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = name.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
