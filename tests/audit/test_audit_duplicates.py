"""Duplicates inside a gallery."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_drawings import drawing
from PIL import Image

from search.audit.copy_edits import edited
from search.audit.duplicates import alike, find_duplicates, fingerprint

SAME = ["resize to 64 px and back", "JPEG quality 50", "JPEG quality 20"]


def paper(grey: int) -> Image.Image:
    return Image.new("RGB", (200, 200), (grey, grey, grey))


def test_equal_files_are_duplicates_of_the_first() -> None:
    looks = [fingerprint(drawing(n)) for n in range(3)]
    entries = [
        ("a", "1", looks[0]),
        ("b", "2", looks[1]),
        ("c", "1", looks[2]),
        ("d", "1", looks[0]),
    ]
    assert find_duplicates(entries) == ["", "", "a", "a"]


@pytest.mark.parametrize("edit", SAME)
def test_edits_in_the_same_frame_are_duplicates(edit: str) -> None:
    for seed in range(10):
        one, other = fingerprint(drawing(seed)), fingerprint(edited(drawing(seed), edit, seed))
        assert find_duplicates([("a", "1", one), ("b", "2", other)]) == ["", "a"]


def test_other_drawings_are_no_duplicates() -> None:
    entries = [(f"{n}", f"{n}", fingerprint(drawing(n))) for n in range(60)]
    assert find_duplicates(entries) == [""] * 60


def test_drawings_of_one_shape_in_other_colours_are_no_duplicates() -> None:
    image = drawing(1)
    red, green, blue = image.split()
    other = Image.merge("RGB", (blue, red, green))
    assert not alike(fingerprint(image), fingerprint(other))


def test_empty_paper_is_told_by_its_shade_alone() -> None:
    white, nearly, black = (fingerprint(paper(grey)) for grey in (255, 251, 0))
    assert alike(white, nearly)
    assert not alike(white, black)
    assert not alike(white, fingerprint(drawing(0)))


def test_hash_is_the_library_s() -> None:
    image = drawing(4).resize((64, 64), Image.Resampling.BOX)
    bits = np.unpackbits(np.frombuffer(fingerprint(image)[:32], np.uint8)).reshape(16, 16)
    assert np.array_equal(bits.astype(bool), imagehash.phash(image, hash_size=16).hash)


def flipped(looks: bytes, bits: int) -> bytes:
    """The fingerprint with that many bits of its hash the other way."""
    table = np.unpackbits(np.frombuffer(looks, np.uint8))
    table[np.arange(bits) * 3] ^= 1
    return np.packbits(table).tobytes()


def test_distance_is_counted_in_bits() -> None:
    one = fingerprint(drawing(0))
    assert alike(one, flipped(one, 7), 7)
    assert not alike(one, flipped(one, 8), 7)


def test_duplicate_of_a_duplicate_is_one_of_the_first_only_if_alike() -> None:
    one = fingerprint(drawing(0))
    chain = [(f"{n}", f"{n}", flipped(one, n)) for n in (0, 4, 8, 9)]
    assert find_duplicates(chain, 5) == ["", "0", "", "8"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=90), st.integers(0, 3))
def test_as_by_comparing_each_with_each(chosen: list[tuple[int, int]], distance: int) -> None:
    some = [fingerprint(drawing(n)) for n in range(4)]
    entries = [
        (f"k{place}", f"{number}-{bits}", flipped(some[number], bits))
        for place, (number, bits) in enumerate(chosen)
    ]
    firsts: list[tuple[str, str, bytes]] = []
    files: dict[str, str] = {}
    expected = []
    for key, sha256, looks in entries:
        same = files.get(sha256) or next(
            (first for first, _, other in firsts if alike(other, looks, distance)), ""
        )
        if not same:
            firsts.append((key, sha256, looks))
        files.setdefault(sha256, same or key)
        expected.append(same)
    assert find_duplicates(entries, distance) == expected
