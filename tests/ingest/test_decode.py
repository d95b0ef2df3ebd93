"""Decoding: every promise with pixels worked out by hand, on images wider than high."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from ingest.decode import Decoded, DecodeLimits, decode
from ingest.errors import ImageError, RejectReason
from ingest.formats import PILLOW_FORMATS


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


# Orientation ---------------------------------------------------------------------------------

# The upright picture is  a b c   for each way that a camera may have stored it.
#                         d e f
UPRIGHT = ["abc", "def"]
STORED = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["cf", "be", "ad"],
    7: ["fc", "eb", "da"],
    8: ["da", "eb", "fc"],
}
LETTERS = {
    letter: (40 * index, 250 - 40 * index, 10 + index) for index, letter in enumerate("abcdef")
}


def drawn(rows: list[str]) -> Image.Image:
    return Image.fromarray(np.array([[LETTERS[c] for c in row] for row in rows], dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    decoded = decode(encoded(drawn(STORED[orientation]), kind, exif=exif, **options))
    assert (decoded.width, decoded.height) == (3, 2)
    assert pixels_of(decoded) == [[LETTERS[c] for c in row] for row in UPRIGHT]


def test_damaged_exif_does_not_cost_the_image() -> None:
    data = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert (decode(data).width, decode(data).height) == (37, 23)


# Depth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 0x00FF, 0x8000], [0x4000, 0xC0DE, 0xFFFF]], dtype=np.uint16)
    decoded = decode(encoded(Image.fromarray(values), kind))
    assert [[p[0] for p in row] for row in pixels_of(decoded)] == [[0, 0, 128], [64, 0xC0, 255]]
    assert all(len(set(pixel)) == 1 for row in pixels_of(decoded) for pixel in row)


def test_16_bit_big_endian_tiff() -> None:
    little = encoded(Image.fromarray(np.array([[0x8000, 0x1234, 0xFF00]], np.uint16)), "TIFF")
    big = Image.frombytes("I;16B", (3, 1), b"\x80\x00\x12\x34\xff\x00")
    assert pixels_of(decode(encoded(big, "TIFF"))) == pixels_of(decode(little))
    assert [pixel[0] for pixel in pixels_of(decode(little))[0]] == [0x80, 0x12, 0xFF]


def test_16_bit_colour_png_keeps_the_high_byte() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    row = b"\0" + struct.pack(">6H", 0x8000, 0x1234, 0xFFFF, 0, 0x4000, 0xC000)
    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    data += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert pixels_of(decode(data)) == [[(0x80, 0x12, 0xFF), (0, 0x40, 0xC0)]]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        ([[0.0, 0.5, 1.0]], [0, 128, 255]),
        ([[0.0, 100.0, 255.0]], [0, 100, 255]),
        ([[0.0, 32768.0, 65535.0]], [0, 128, 255]),
        ([[-1.0, 0.0, 3.0]], [0, 64, 255]),
        ([[float("nan"), 0.5, float("inf")]], [0, 128, 0]),
    ],
)
def test_float_images_are_scaled_by_their_range(values: list[list[float]], grey: list[int]) -> None:
    decoded = decode(encoded(Image.fromarray(np.array(values, dtype=np.float32)), "TIFF"))
    assert [pixel[0] for pixel in pixels_of(decoded)[0]] == grey


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        ([[0, 7, 255]], [0, 7, 255]),
        ([[0, 0x8000, 0xFFFF]], [0, 128, 255]),
        ([[-100_000, 0, 100_000]], [0, 128, 255]),
    ],
)
def test_32_bit_integers_are_scaled_by_their_range(
    values: list[list[int]], grey: list[int]
) -> None:
    decoded = decode(encoded(Image.fromarray(np.array(values, dtype=np.int32)), "TIFF"))
    assert [pixel[0] for pixel in pixels_of(decoded)[0]] == grey


def test_one_bit() -> None:
    image = Image.new("1", (3, 1))
    image.putpixel((1, 0), 1)
    black, white = (0, 0, 0), (255, 255, 255)
    assert pixels_of(decode(encoded(image, "PNG"))) == [[black, white, black]]


# Transparency --------------------------------------------------------------------------------


def test_half_transparent_red_on_white() -> None:
    image = Image.new("RGBA", (3, 2), (255, 0, 0, 128))
    image.putpixel((2, 0), (0, 0, 255, 255))
    image.putpixel((0, 1), (0, 255, 0, 0))
    (first, _, blue), (clear, _, _) = pixels_of(decode(encoded(image, "PNG")))
    assert first == (255, 127, 127)
    assert blue == (0, 0, 255)
    assert clear == (255, 255, 255)


def test_grey_with_alpha() -> None:
    image = Image.new("LA", (2, 1), (0, 51))
    image.putpixel((1, 0), (100, 255))
    assert pixels_of(decode(encoded(image, "PNG"))) == [[(204, 204, 204), (100, 100, 100)]]


def palette(*colours: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (len(colours), 1))
    image.putpalette([value for colour in colours for value in colour])
    for index in range(len(colours)):
        image.putpixel((index, 0), index)
    return image


def test_palette_without_transparency() -> None:
    data = encoded(palette((9, 8, 7), (200, 100, 50)), "PNG")
    assert pixels_of(decode(data)) == [[(9, 8, 7), (200, 100, 50)]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour(kind: str) -> None:
    data = encoded(palette((9, 8, 7), (200, 100, 50)), kind, transparency=1)
    assert pixels_of(decode(data)) == [[(9, 8, 7), (255, 255, 255)]]


def test_palette_with_alpha_for_each_colour() -> None:
    data = encoded(palette((255, 0, 0), (0, 0, 255)), "PNG", transparency=bytes([128, 255]))
    assert pixels_of(decode(data)) == [[(255, 127, 127), (0, 0, 255)]]


@pytest.mark.parametrize(
    ("mode", "colour", "transparency"),
    [("RGB", (1, 2, 3), (1, 2, 3)), ("L", 77, 77), ("1", 0, 0)],
)
def test_trns_chunk(mode: str, colour: Any, transparency: Any) -> None:
    other = {"RGB": (3, 2, 1), "L": 78, "1": 1}[mode]
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), other)
    seen = {"RGB": (3, 2, 1), "L": (78, 78, 78), "1": (255, 255, 255)}[mode]
    data = encoded(image, "PNG", transparency=transparency)
    assert pixels_of(decode(data)) == [[(255, 255, 255), seen]]


def test_trns_chunk_of_16_bit_grey() -> None:
    image = Image.fromarray(np.array([[0x1234, 0x1235]], dtype=np.uint16))
    data = encoded(image, "PNG", transparency=0x1234)
    assert pixels_of(decode(data)) == [[(255, 255, 255), (0x12, 0x12, 0x12)]]


# Colour --------------------------------------------------------------------------------------


def test_cmyk_tiff() -> None:
    image = Image.new("CMYK", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    assert pixels_of(decode(encoded(image, "TIFF"))) == [[(0, 255, 255), (0, 0, 0)]]


def test_adobe_inverted_cmyk_jpeg() -> None:
    data = encoded(Image.new("CMYK", (24, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data  # whose CMYK is stored inverted
    red = np.asarray(decode(data).image).astype(int)
    assert np.abs(red - (255, 0, 0)).max() <= 3


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


def test_icc_profile_is_applied() -> None:
    image = Image.new("RGB", (3, 2), (255, 0, 0))
    decoded = decode(encoded(image, "PNG", icc_profile=matrix_profile(swapped=True)))
    green = np.asarray(decoded.image).astype(int)
    assert np.abs(green - (0, 255, 0)).max() <= 2


def test_linear_light_profile_brightens_greys() -> None:
    image = Image.new("RGB", (3, 2), (55, 55, 55))
    decoded = decode(encoded(image, "PNG", icc_profile=matrix_profile(swapped=False)))
    # sRGB of a linear 55/255: 1.055 * 0.2157 ** (1 / 2.4) - 0.055 = 0.5017, times 255 = 127.9
    assert np.abs(np.asarray(decoded.image).astype(int) - 128).max() <= 2


def test_icc_profile_leaves_alpha_alone() -> None:
    image = Image.new("RGBA", (3, 2), (255, 0, 0, 128))
    decoded = decode(encoded(image, "PNG", icc_profile=matrix_profile(swapped=True)))
    assert np.abs(np.asarray(decoded.image).astype(int) - (127, 255, 127)).max() <= 2


@pytest.mark.parametrize(
    "profile",
    [
        b"not a profile",
        matrix_profile(swapped=True)[:200],
        matrix_profile(swapped=True).replace(b"mntrRGB ", b"prtrCMYK"),
        matrix_profile(swapped=True, description="sRGB IEC61966-2.1"),
    ],
    ids=["garbage", "cut off", "of another colour space", "says that it is sRGB"],
)
def test_profiles_that_change_nothing(profile: bytes) -> None:
    data = encoded(Image.new("RGB", (3, 2), (250, 20, 10)), "PNG", icc_profile=profile)
    assert set(pixels_of(decode(data))[0]) == {(250, 20, 10)}


def test_lab_tiff() -> None:
    image = Image.new("LAB", (3, 2), (255, 128, 128))
    assert np.asarray(decode(encoded(image, "TIFF")).image).min() >= 253


def test_what_was_used_up_is_not_left_to_be_applied_twice() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo(), "JPEG", exif=exif, icc_profile=matrix_profile(swapped=True))
    image = decode(data).image
    assert image.info == {}
    assert dict(image.getexif()) == {}


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
