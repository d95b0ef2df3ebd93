"""Sizes that a file's first header does not tell: of pictures within it that are decoded whole.

An icon of 16 x 16 may hold a PNG of any size, a TIFF of 16 x 16 one tile of any size, and an AVIF
of 16 x 16 a frame of any size, which is made small once it has been decoded.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO

from PIL import Image, TiffImagePlugin

from ingest.av1_size import av1_sizes

__all__ = ["Size", "hidden_sizes", "icon_sizes"]

Size = tuple[int, int]
"""Width and height in pixels."""

_ICON = b"\0\0\1\0"
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PICTURES = 256
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags


def icon_sizes(data: bytes) -> list[Size]:
    """Sizes of the pictures in an icon (ICO), by their own headers; [] for other files.

    Pillow decodes one of them as it opens the file: they are looked at before.

    Raises:
        ValueError: there are very many of them.
    """
    if not data.startswith(_ICON):
        return []
    count = int.from_bytes(data[4:6], "little")
    if count > _MAX_PICTURES:
        raise ValueError(f"an icon of {count} pictures")
    found = []
    for place in range(6 + 12, 6 + 16 * count, 16):
        inner = data[int.from_bytes(data[place : place + 4], "little") :]
        is_png = inner.startswith(_PNG)
        with suppress(OSError, SyntaxError, ValueError, struct.error):  # it is none, for Pillow too
            with Image.open(BytesIO(inner), formats=("PNG" if is_png else "DIB",)) as picture:
                width, height = picture.size
            found.append((width, height if is_png else max(height // 2, 1)))  # below it: its mask
    return found


def hidden_sizes(image: Image.Image, data: bytes) -> list[Size]:
    """Sizes of what `image.load()` will decode, beside `image.size`.

    Args:
        image: opened, not loaded.
        data: its file.
    """
    match image.format:
        case "TIFF":
            assert isinstance(image, TiffImagePlugin.TiffImageFile)  # noqa: S101 (its format)
            tile = image.tag_v2.get(_TILE_WIDTH), image.tag_v2.get(_TILE_LENGTH)
            return [(int(tile[0]), int(tile[1]))] if tile[0] and tile[1] else []
        case "AVIF":
            return av1_sizes(data)
        case _:
            return []
