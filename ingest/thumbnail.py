"""Small pictures of training images, kept so that answers can be looked at without the sources."""

from __future__ import annotations

import io
from contextlib import suppress

from PIL import Image

from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError

__all__ = ["KEEP_BYTES", "SIDE", "make_thumbnail", "open_thumbnail"]

SIDE = 256
"""Longest side in pixels."""

KEEP_BYTES = 32_768
"""An image file that is no larger than this, and small enough already, is its own thumbnail."""

_LIMITS = DecodeLimits(max_bytes=1 << 20, max_pixels=1 << 20)


def make_thumbnail(image: Image.Image, data: bytes, file_format: str) -> bytes:
    """A JPEG no larger than `SIDE` pixels; or the file itself where it is a small plain JPEG.

    `image` is the decoded RGB image, `data` the file that it came from. A file that carries EXIF,
    an ICC profile or an alpha channel is always drawn anew: a thumbnail shows upright sRGB, and
    gives away no camera position.
    """
    if (
        file_format == "JPEG"
        and len(data) <= KEEP_BYTES
        and max(image.size) <= SIDE
        and b"Exif\x00" not in data
        and b"ICC_PROFILE" not in data
    ):
        return data
    small = image
    if max(image.size) > SIDE:
        small = image.resize(_fit(image.size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=82)
    return out.getvalue()


def open_thumbnail(data: bytes) -> Image.Image | None:
    """The picture (mode RGB) of a thumbnail's file; None if that is no image of such a size."""
    with suppress(ImageError):
        return decode(data, _LIMITS).image
    return None


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    scale = SIDE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
