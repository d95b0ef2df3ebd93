"""Files of images made for the tests of decoding, and what is found in them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest.decode import Decoded, DecodeLimits, decode
from ingest.errors import ImageError, RejectReason


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(width: int = 37, height: int = 23) -> Image.Image:
    """Smooth enough for JPEG, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 2 % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def pixels_of(decoded: Decoded) -> list[list[tuple[int, ...]]]:
    array = np.asarray(decoded.image)
    assert array.shape == (decoded.height, decoded.width, 3)
    return [[tuple(int(value) for value in pixel) for pixel in row] for row in array]


def reason_of(data: bytes, limits: DecodeLimits | None = None) -> RejectReason:
    with pytest.raises(ImageError) as caught:
        decode(data, limits or DecodeLimits())
    return caught.value.reason


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def matrix_profile(swapped: bool, description: str = "made by hand", gamma: float = 1.0) -> bytes:
    """A version 2 RGB matrix profile with sRGB's primaries; `swapped` exchanges red and green."""

    def s15(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(x: float, y: float, z: float) -> bytes:
        return b"XYZ \0\0\0\0" + s15(x) + s15(y) + s15(z)

    red, green = xyz(0.43607, 0.22249, 0.01392), xyz(0.38515, 0.71687, 0.09708)
    if swapped:
        red, green = green, red
    text = description.encode() + b"\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": red,
        b"gXYZ": green,
        b"bXYZ": xyz(0.14307, 0.06061, 0.71410),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I", 128 + len(table) + len(body)) + b"\0\0\0\0" + b"\x02\x10\0\0"
    head += b"mntrRGB XYZ " + b"\0" * 12 + b"acsp" + b"\0" * 28
    head += s15(0.9642) + s15(1.0) + s15(0.8249)
    return head.ljust(128, b"\0") + table + body
