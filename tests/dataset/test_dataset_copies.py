"""Copies of exemplars at the size of a generator, and pictures that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from tiny_builds import SETTINGS, Build

from embed.lazy_embedder import LazyEmbedder
from embed.registry import find_model
from evaluation.dataset.check import check_dataset
from evaluation.dataset.copies import COPY_SCORE, copy_scores

TRAINING = Path(__file__).resolve().parents[2] / "examples" / "training" / "images"


@pytest.fixture(scope="module")
def drawings() -> list[Image.Image]:
    """Twelve that are no copies of each other."""
    paths = sorted(TRAINING.iterdir())[::7][:12]
    return [Image.open(path).convert("RGB") for path in paths]


def drawn(image: Image.Image) -> Image.Image:
    """As a generator of 64 pixels would repeat it."""
    return ImageOps.fit(image, (64, 64), Image.Resampling.LANCZOS)


def test_a_copy_through_a_resize_is_one_and_other_drawings_are_none(
    drawings: list[Image.Image],
) -> None:
    small = [drawn(image) for image in drawings]
    for number, exemplar in enumerate(drawings):
        scores = copy_scores(small, [exemplar])
        assert scores[number] > 0.9
        others = scores[:number] + scores[number + 1 :]
        assert max(others) < COPY_SCORE


def test_mirrored_enlarged_and_smaller_copies_are_copies(drawings: list[Image.Image]) -> None:
    found = []
    for exemplar in drawings:
        small = drawn(exemplar)
        large = small.resize((76, 76), Image.Resampling.BICUBIC).crop((6, 6, 70, 70))
        shrunk = Image.new("RGB", (64, 64), (127, 127, 127))
        shrunk.paste(small.resize((52, 52), Image.Resampling.BICUBIC), (4, 8))
        scores = copy_scores([ImageOps.mirror(small), large, shrunk], [drawings[0], exemplar])
        found.append([score >= COPY_SCORE for score in scores])
    mirrored, large_ones, shrunk_ones = (sum(some) for some in zip(*found, strict=True))
    assert mirrored == len(drawings)
    assert large_ones >= 0.9 * len(drawings)
    assert shrunk_ones >= 0.6 * len(drawings)


def test_a_model_that_repeats_its_exemplar_is_told_of(
    build: Build, drawings: list[Image.Image], tmp_path: Path
) -> None:
    """By the check with its default judge and threshold; other models are not."""
    library = tmp_path / "library"
    for number, image in enumerate(drawings):
        place = library / ("cat", "dog", "boat")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number}.png")
    out = tmp_path / "set"
    build(out, SETTINGS, images=library)
    record = json.loads((out / "models" / "0001.json").read_text())
    (exemplar,) = record["exemplars"]
    for path in record["prompts"]:
        drawn(Image.open(out / exemplar).convert("RGB")).save(out / path)
    model = find_model("efficientnet-lite0")
    check = check_dataset(out, model, LazyEmbedder(model))
    assert [one.copies for one in check.models] == [0, 5, 0]
    assert [one.id for one in check.copying] == ["0001"]
    shutil.rmtree(library)
