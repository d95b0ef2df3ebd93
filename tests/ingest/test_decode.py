"""Decoding: frames and formats, limits, damage, and whatever bytes there are."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from encoded import encoded, matrix_profile, photo, png_header, reason_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError, RejectReason
from ingest.formats import PILLOW_FORMATS

# Frames and formats --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_first_frame(kind: str) -> None:
    first, second = Image.new("RGB", (24, 16), (255, 0, 0)), Image.new("RGB", (24, 16), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    decoded = decode(data)
    assert (decoded.width, decoded.height, decoded.format) == (24, 16, kind)
    assert np.abs(np.asarray(decoded.image).astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "ICO"])
def test_lossless_formats_to_the_pixel(kind: str) -> None:
    image = photo(32, 16)
    options = {"sizes": [(32, 16)]} if kind == "ICO" else {}
    decoded = decode(encoded(image, kind, **options))
    assert decoded.format == kind
    assert decoded.image.tobytes() == image.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_formats_as_pillow_decodes_them(kind: str) -> None:
    feature = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000", "JPEG": "jpg"}[kind]
    if not features.check(feature):
        pytest.skip(f"this Pillow has no {kind}")
    data = encoded(photo(), kind)
    with Image.open(BytesIO(data)) as expected:
        assert decode(data).image.tobytes() == expected.convert("RGB").tobytes()
    assert type(decode(data).image) is Image.Image


def test_formats_that_start_programs_are_refused() -> None:
    assert not {"EPS", "PDF", "WMF", "MPEG", "HDF5", "GRIB", "BUFR"} & set(PILLOW_FORMATS)
    assert reason_of(encoded(photo(), "EPS")) is RejectReason.NOT_AN_IMAGE
    assert reason_of(b"%PDF-1.7\n" + b"\0" * 100) is RejectReason.NOT_AN_IMAGE


# Limits and damage ---------------------------------------------------------------------------


def test_empty() -> None:
    with pytest.raises(ImageError, match=r"^empty file$"):
        decode(b"")


def test_too_many_bytes() -> None:
    with pytest.raises(ImageError) as caught:
        decode(b"x" * 101, DecodeLimits(max_bytes=100))
    assert str(caught.value) == "more bytes than the limit: 101 bytes, the limit is 100"


def test_too_many_pixels_is_seen_in_the_header() -> None:
    with pytest.raises(ImageError) as caught:
        decode(encoded(photo(20, 11), "PNG"), DecodeLimits(max_pixels=219))
    assert str(caught.value) == "more pixels than the limit: 20 x 11 pixels, the limit is 219"
    assert decode(encoded(photo(20, 11), "PNG"), DecodeLimits(max_pixels=220)).width == 20


@pytest.mark.parametrize(("width", "height"), [(10_001, 9_999), (16_000, 9_000), (60_000, 50_000)])
def test_bombs(width: int, height: int) -> None:
    limits = DecodeLimits(max_pixels=99_000_000)
    assert reason_of(png_header(width, height), limits) is RejectReason.TOO_MANY_PIXELS


def test_not_an_image() -> None:
    with pytest.raises(ImageError, match=r"^not an image$"):
        decode(b"<html>404 not found</html>")


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"]
)
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated(kind: str, part: float) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert reason_of(data[: int(len(data) * part)]) is RejectReason.TRUNCATED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_a_cut_file_never_passes_for_another_picture(kind: str) -> None:
    """Readers that fill the missing rows with grey would put pictures into the index that are not
    in the training set."""
    data = encoded(photo(), kind)
    whole = decode(data).image.tobytes()
    for kept in range(1, len(data), max(1, len(data) // 60)):
        try:
            decoded = decode(data[:kept])
        except ImageError:
            continue
        assert decoded.image.tobytes() == whole


def test_damaged_header_of_a_known_kind() -> None:
    data = encoded(photo(), "PNG")
    with pytest.raises(ImageError, match=r"^truncated image: "):
        decode(data[:20])
    with pytest.raises(ImageError, match=r"^broken image data: damaged PNG header$"):
        decode(data.replace(b"IHDR", b"IHDX"))


@pytest.mark.parametrize("error", [ValueError, struct.error, SyntaxError, MemoryError, IndexError])
def test_whatever_pillow_raises_is_an_image_error(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("bad\nbytes")

    data = encoded(photo(), "PNG")
    monkeypatch.setattr("ingest.decode.to_rgb", fail)
    with pytest.raises(ImageError, match=r"^broken image data: bad bytes$"):
        decode(data)


def test_warnings_do_not_leak_and_others_are_not_muted() -> None:
    bomb_for_pillow_only = png_header(10_000, 9_500)  # above its warning, below our limit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason_of(bomb_for_pillow_only) is RejectReason.TRUNCATED
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)


def test_many_threads_see_the_same_pixels() -> None:
    profile = matrix_profile(swapped=True)
    files = [
        encoded(photo(), "JPEG", icc_profile=profile),
        encoded(photo(), "PNG"),
        encoded(photo(), "GIF"),
        encoded(photo(), "WEBP"),
    ]
    alone = [decode(data).image.tobytes() for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda data: decode(data).image.tobytes(), files * 25))
    assert together == alone * 25


def decodes_or_says_why(data: bytes) -> None:
    try:
        decoded = decode(data, DecodeLimits(max_pixels=100_000))
    except ImageError as caught:
        error = caught
    else:
        assert decoded.image.mode == "RGB"
        assert decoded.image.size == (decoded.width, decoded.height)
        return
    assert isinstance(error.reason, RejectReason)
    assert "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_image_errors(data: bytes) -> None:
    decodes_or_says_why(data)


SEEDS: list[Callable[[], bytes]] = [
    lambda: encoded(photo(), "JPEG", icc_profile=matrix_profile(swapped=True)),
    lambda: encoded(photo(), "PNG", icc_profile=matrix_profile(swapped=True)),
    lambda: encoded(photo(), "GIF"),
    lambda: encoded(photo(), "WEBP"),
    lambda: encoded(photo(), "TIFF"),
    lambda: encoded(photo(), "BMP"),
    lambda: encoded(photo(), "ICO", sizes=[(32, 16)]),
    lambda: encoded(photo(), "PPM"),
    lambda: encoded(photo(), "JPEG2000"),
    lambda: encoded(Image.fromarray(np.arange(6, dtype=np.uint16).reshape(2, 3)), "PNG"),
]
SEED_FILES = [make() for make in SEEDS]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEED_FILES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4))),
    st.floats(0, 1),
)
def test_mutated_files_decode_or_are_image_errors(
    data: bytes, changes: list[tuple[float, bytes]], kept: float
) -> None:
    mutated = bytearray(data)
    for place, patch in changes:
        at = int(place * len(mutated))
        mutated[at : at + len(patch)] = patch
    decodes_or_says_why(bytes(mutated[: int(len(mutated) * max(kept, 0.3))]))
