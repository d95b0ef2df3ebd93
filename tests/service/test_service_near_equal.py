"""Near-equal images: what is taken for one picture and what is not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from search.service.near_equal import Print, folds, print_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def made(bits: int = 0, colour: int = 0, ratio: float = 1.0) -> Print:
    """A print with so many bits set, and one square of 256 so much brighter."""
    colours = np.full((16, 16, 3), 100, np.uint8)
    colours[3, 5] += colour
    return Print(ratio, np.arange(256) < bits, colours)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """200 training images of the examples, all different."""
    files = pq.read_table(EXAMPLES / "training" / "metadata.parquet").column("file").to_pylist()
    return [Image.open(EXAMPLES / "training" / name).convert("RGB") for name in files[:200]]


@pytest.mark.parametrize(
    ("other", "near"),
    [
        (made(), True),
        (made(bits=12), True),
        (made(bits=13), False),
        (made(colour=16), True),
        (made(colour=17), False),
        (made(ratio=1.019), True),
        (made(ratio=1.03), False),
        (made(ratio=0.97), False),
    ],
)
def test_limits(other: Print, near: bool) -> None:
    assert folds([made(), other]) == ([[0, 1]] if near else [])


def test_no_chain_leads_from_one_picture_to_another() -> None:
    prints = [made(bits=0), made(bits=10), made(bits=20), made(bits=30)]
    assert folds(prints) == [[0, 1], [2, 3]]  # 1 and 2 are near-equal, and 1 is folded already


def test_places_are_those_given_and_images_without_a_thumbnail_are_passed_over() -> None:
    prints = [None, made(bits=90), made(), None, made(bits=91), made(bits=40), made(bits=1)]
    assert folds(prints) == [[1, 4], [2, 6]]
    assert folds([]) == folds([None]) == folds([made()]) == []


AGAIN: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": lambda image: file(image, "JPEG", quality=60),
    "webp": lambda image: file(image, "WEBP", quality=75),
    "smaller": lambda image: file(image.resize((image.width // 2, image.height // 2)), "JPEG"),
}
OTHERS: dict[str, Callable[[Image.Image], bytes]] = {
    "mirrored": lambda image: file(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "other colours": lambda image: file(Image.merge("RGB", image.split()[::-1])),
    "wider": lambda image: file(image.resize((image.width * 2, image.height))),
}


@pytest.mark.parametrize("how", AGAIN)
def test_a_picture_that_was_saved_again_is_found(pictures: list[Image.Image], how: str) -> None:
    found = sum(
        folds([print_of(file(image)), print_of(AGAIN[how](image))]) == [[0, 1]]
        for image in pictures
    )
    assert found >= 0.92 * len(pictures)


@pytest.mark.parametrize("how", OTHERS)
def test_another_picture_is_not(pictures: list[Image.Image], how: str) -> None:
    for image in pictures[:40]:
        colours = np.asarray(image.resize((16, 16), Image.Resampling.BOX), np.int16)
        others = OTHERS[how](image)
        with Image.open(io.BytesIO(others)) as other:
            there = np.asarray(
                other.convert("RGB").resize((16, 16), Image.Resampling.BOX), np.int16
            )
        if how != "wider" and np.abs(colours - there).mean(2).max() <= 16:
            continue  # a grey or a symmetrical one: it is the same picture
        assert folds([print_of(file(image)), print_of(others)]) == []


def test_different_training_images_are_not_near_equal(pictures: list[Image.Image]) -> None:
    assert folds([print_of(file(image)) for image in pictures]) == []


def test_fine_lines_are_seen_by_the_hash_and_colours_by_the_grid() -> None:
    def drawn(ink: str, x: int) -> bytes:
        image = Image.new("RGB", (224, 224), "white")
        ImageDraw.Draw(image).line((x, 20, 224 - x, 200), fill=ink, width=1)
        return file(image)

    assert folds([print_of(drawn("#ccc", 20)), print_of(drawn("#ccc", 110))]) == []
    red, blue = (Image.new("RGB", (64, 64), ink) for ink in ("#d22", "#22d"))
    assert folds([print_of(file(red)), print_of(file(blue))]) == []


def test_rows_of_an_answer(client: httpx.Client, generated: Path) -> None:
    given = client.post("/v1/attributions?k=20", files={"image": generated.read_bytes()}).json()
    path = f"/v1/attributions/{given['id']}/near-equal"
    first, again = client.get(path), client.get(path)
    assert first.json() == again.json() == {"folds": [], "compared": len(given["rows"])}
    unknown = client.get(f"/v1/attributions/{'0' * 64}/near-equal")
    assert unknown.status_code == 404
    assert unknown.json()["type"] == "urn:attrib:problem:no-such-answer"
