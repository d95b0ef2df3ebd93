from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ingest.decode import DecodeLimits, decode
from search.service.query_picture import QueryPicture

LIMITS = DecodeLimits(max_bytes=1 << 24, max_pixels=1 << 24)


def png(width: int, height: int, *, noise: bool = False) -> bytes:
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[: height // 2] = 200
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "keeps_file"),
    [
        (png(800, 600), True),
        (png(800, 600, noise=True), False),  # 1.4 MB, small 330 kB
        (png(2000, 1100), False),  # few bytes, many pixels
        (png(20, 10, noise=True), False),  # the file's head makes it larger than its 200 pixels
        (png(60, 30), True),
    ],
)
def test_the_file_is_kept_where_it_is_the_smaller_and_looks_the_same(
    data: bytes, keeps_file: bool
) -> None:
    kept = QueryPicture.of(data, decode(data, LIMITS).image, LIMITS)
    assert (kept.held == data) is keeps_file
    small = decode(data, LIMITS).image
    small.thumbnail((384, 384))
    assert kept.size == (len(data) if keeps_file else 3 * small.width * small.height)
    assert kept.size <= 3 * small.width * small.height
    expected = BytesIO()
    small.save(expected, "WEBP", quality=85)
    assert kept.webp() == expected.getvalue()
    with Image.open(BytesIO(kept.webp())) as picture:
        assert picture.size == small.size
