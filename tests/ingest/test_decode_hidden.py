"""Files that announce little and hold much."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from ingest.av1_size import av1_sizes
from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError, RejectReason

LIMITS = DecodeLimits(max_pixels=1_000_000)
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def saved(size: tuple[int, int], kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = BytesIO()
    Image.new(mode, size, None if mode == "1" else 9).save(file, kind, **options)
    return file.getvalue()


def icon(*pictures: tuple[int, int, bytes]) -> bytes:
    """An ICO whose pictures are said to have those sizes."""
    at = 6 + 16 * len(pictures)
    head, body = struct.pack("<HHH", 0, 1, len(pictures)), b""
    for width, height, data in pictures:
        entry = (width, height, 0, 0, 1, 32, len(data), at + len(body))
        head += struct.pack("<BBBBHHII", *entry)
        body += data
    return head + body


def tiff(side: int, tile: int) -> bytes:
    """A TIFF whose one tile is larger than its image, all black, deflated."""
    body = zlib.compress(bytes(3 * tile * tile), 9)
    at = 8 + len(body)
    tags: list[tuple[int, int, int, int]] = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, at + 2 + 12 * 10 + 4), (259, 3, 1, 8),
        (262, 3, 1, 2), (277, 3, 1, 3), (322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 8),
        (325, 4, 1, len(body)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags))
    for tag, kind, count, value in tags:
        directory += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", at) + body + directory + struct.pack("<IHHH", 0, 8, 8, 8)


def announced(data: bytes, width: int, height: int) -> bytes:
    """An AVIF that says to be of another size."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as failed:
        decode(data, LIMITS)
    assert failed.value.reason is RejectReason.TOO_MANY_PIXELS, failed.value
    return str(failed.value.detail)


def dib(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, 2 * height, 1, 32, 0, 0, 0, 0, 0, 0)
    return header + bytes(64)


def test_an_icon_is_as_large_as_what_it_holds() -> None:
    large = saved((1200, 1000), "PNG")
    assert refused(icon((16, 16, large))) == "1200 x 1000 pixels, the limit is 1000000"
    assert refused(icon((16, 16, dib(1200, 1000)))) == "1200 x 1000 pixels, the limit is 1000000"
    # Pillow takes one of those that claim the largest size, whichever it is.
    small = saved((32, 32), "PNG")
    for pictures in ([large, small], [small, large]):
        refused(icon(*[(32, 32, picture) for picture in pictures]))
    # A PNG whose header is not its first chunk is none by the book, and Pillow reads it.
    late = large[:8] + struct.pack(">I4sI", 0, b"tEXt", zlib.crc32(b"tEXt")) + large[8:]
    refused(icon((16, 16, late)))
    with pytest.raises(ImageError, match="an icon of 300 pictures"):
        decode(icon(*[(16, 16, b"")] * 300), LIMITS)
    good = icon((16, 16, saved((16, 16), "PNG")), (32, 32, small))
    assert decode(good, LIMITS).image.size == (32, 32)
    for bitmap in ("png", "bmp"):
        sizes = [(16, 16), (256, 256)]
        data = saved((256, 256), "ICO", "RGBA", sizes=sizes, bitmap_format=bitmap)
        assert decode(data, LIMITS).image.size == (256, 256)


def test_a_tiff_is_as_large_as_its_tiles() -> None:
    assert refused(tiff(16, 1040)) == "1040 x 1040 pixels, the limit is 1000000"
    assert decode(tiff(16, 64), LIMITS).image.size == (16, 16)


@needs_avif
def test_an_avif_is_as_large_as_its_frames() -> None:
    data = saved((1200, 1000), "AVIF", speed=10)
    refused(data)
    assert refused(announced(data, 16, 16)) == "1200 x 1000 pixels, the limit is 1000000"
    frames = [Image.new("RGB", (1200, 1000), (40 * i, 0, 0)) for i in range(3)]
    file = BytesIO()
    frames[0].save(file, "AVIF", save_all=True, append_images=frames[1:], speed=10)
    assert set(av1_sizes(file.getvalue())) == {(1200, 1000)}
    whole = decode(saved((120, 100), "AVIF", speed=10), LIMITS)
    assert whole.image.size == (120, 100)


@needs_avif
@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.sampled_from(["RGB", "RGBA", "L"]),
    st.sampled_from(["4:4:4", "4:2:0", "4:0:0"]),
)
def test_sizes_of_avif_frames(size: tuple[int, int], mode: str, subsampling: str) -> None:
    data = saved(size, "AVIF", mode, subsampling=subsampling, speed=10)
    assert set(av1_sizes(data)) == {size}


@needs_avif
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_avif_is_broken_or_has_sizes(data: st.DataObject) -> None:
    whole = bytearray(saved((20, 10), "AVIF", speed=10))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        sizes = av1_sizes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ValueError:
        return
    assert all(width > 0 and height > 0 for width, height in sizes)


def test_the_pixels_are_told_before_they_are_decoded() -> None:
    told: list[int] = []
    decode(saved((30, 20), "PNG"), LIMITS, before=told.append)
    decode(icon((16, 16, saved((64, 32), "PNG"))), LIMITS, before=told.append)
    assert told == [600, 2048]
    with pytest.raises(ImageError):
        decode(saved((1200, 1000), "PNG"), LIMITS, before=told.append)
    assert len(told) == 2  # what is refused takes nothing


MEASURE = """
import sys
from pathlib import Path
from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
for path in sys.argv[1:]:
    try:
        decode(Path(path).read_bytes(), DecodeLimits(max_pixels=1_000_000))
    except ImageError:
        print(peak() - before)
"""


@needs_avif
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_refusing_them_takes_no_memory(tmp_path: Path) -> None:
    bombs = {
        "icon": icon((16, 16, saved((6000, 6000), "PNG"))),
        "tiff": tiff(16, 6000),
        "avif": announced(saved((6000, 6000), "AVIF", speed=10), 16, 16),
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
        assert len(data) < 1_000_000
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", MEASURE, *[str(tmp_path / name) for name in bombs]]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True, check=True)
    grown = list(map(int, done.stdout.split()))  # kilobytes; 6,000 x 6,000 pixels take 100,000
    assert len(grown) == 3
    assert max(grown) < 20_000, grown
