"""Decoding to upright RGB: orientation, depth, transparency, palettes, colour spaces."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from encoded import encoded, matrix_profile, photo, pixels_of
from PIL import Image

from ingest.decode import decode

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
