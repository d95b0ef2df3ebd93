"""The query image behind an answer's link, kept in the form that costs least."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from ingest.decode import DecodeLimits, decode

__all__ = ["QueryPicture"]

_SIDE = 384
_PIXELS = 1 << 21
"""A file that decodes to more is not kept: looking at it again would cost too much."""


@dataclass(frozen=True)
class QueryPicture:
    """A query image, small.

    Attributes:
        held: its file, where that takes no more memory than its pixels made small, and is decoded
            when the link is followed: most never are, and making an image small takes half as
            long as decoding it; else its small pixels.
        limits: that the file was decoded under.
    """

    held: bytes | Image.Image
    limits: DecodeLimits

    @classmethod
    def of(cls, data: bytes, image: Image.Image, limits: DecodeLimits) -> QueryPicture:
        """Of a file and what it decoded to, which may be made small for it."""
        scale = min(1.0, _SIDE / max(image.size))
        small = _bytes(round(image.width * scale), round(image.height * scale))
        if len(data) <= small and image.width * image.height <= _PIXELS:
            return cls(data, limits)
        image.thumbnail((_SIDE, _SIDE))
        return cls(image, limits)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        if isinstance(self.held, bytes):
            return len(self.held)
        return _bytes(self.held.width, self.held.height)

    def webp(self) -> bytes:
        """A WebP file, at most 384 pixels wide or high, with nothing else that its file held."""
        if isinstance(self.held, bytes):
            small = decode(self.held, self.limits).image
            small.thumbnail((_SIDE, _SIDE))
        else:
            small = self.held
        file = io.BytesIO()
        small.save(file, "WEBP", quality=85)
        return file.getvalue()


def _bytes(width: int, height: int) -> int:
    return 3 * width * height
