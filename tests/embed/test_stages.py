"""Inner stages as features, and images that go through a generator's resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embed.backbones import BACKBONES
from embed.embedder import Embedder
from embed.families.efficientnet_lite import load_classifier
from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel, load
from embed.preprocess import Preprocessing

from .conftest import random_pixels

BACKBONE = BACKBONES["efficientnet-lite0-stages"]
SMALL = BACKBONES["efficientnet-lite0-stages-48px"]


def test_features_equal_what_hooks_see() -> None:
    network = load_classifier(BACKBONE)
    seen: list[np.ndarray] = []
    for block in network.blocks[1:6]:  # type: ignore[index]
        block.register_forward_hook(lambda _m, _i, out: seen.append(out.numpy()))
    pixels = random_pixels(2, 224)
    with torch.inference_mode():
        network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
    parts = [moment for out in seen for moment in (out.mean((2, 3)), out.std((2, 3)))]
    # 14 positions in three overlapping parts, as adaptive pooling has them.
    spans = [slice(0, 5), slice(4, 10), slice(9, 14)]
    grid = np.stack([seen[3][:, :, y, x].mean((2, 3)) for y in spans for x in spans], axis=2)
    expected = np.concatenate([*parts, grid.reshape(2, -1)], axis=1)
    found = Embedder(BACKBONE, device="cpu").embed(pixels)
    assert found.shape == (2, BACKBONE.dim)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_through_reduces_larger_images_only() -> None:
    half = (0.5, 0.5, 0.5)
    plain = Preprocessing(64, 64, "bicubic", half, half)
    small = Preprocessing(64, 64, "bicubic", half, half, through=16)
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8))
    reduced = image.resize((21, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(small.apply(image), plain.apply(reduced))
    np.testing.assert_array_equal(small.apply(reduced), plain.apply(reduced))
    assert not np.array_equal(small.apply(image), plain.apply(image))
    with pytest.raises(ValueError, match="through must be 0 or more"):
        Preprocessing(64, 64, "bicubic", half, half, through=-1)


def test_through_is_kept_and_older_descriptions_stay_what_they_were() -> None:
    assert "through" not in BACKBONE.preprocessing.to_dict()
    again = Preprocessing.from_dict(SMALL.preprocessing.to_dict())
    assert again == SMALL.preprocessing
    assert again.through == 48


def test_a_card_is_kept_and_halves_lose_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    exact = rng.normal(size=(4, BACKBONE.dim)).astype(np.float16)
    other = rng.normal(size=(4, BACKBONE.dim)).astype(np.float32)
    sizes = []
    for weight in (exact, other):
        mapper = Mapper.linear(weight, np.zeros(4))
        model = AttributionModel("m", BACKBONE, MapperPair(mapper, mapper), card={"a": [1, "b"]})
        folder = tmp_path / str(len(sizes))
        model.save(folder)
        found = load(folder)
        assert found.card == {"a": [1, "b"]}
        assert found.feature_fingerprint == model.feature_fingerprint
        np.testing.assert_array_equal(
            found.mappers.real_mapper.arrays["weight"], weight.astype(np.float32)
        )
        sizes.append((folder / "mapper.safetensors").stat().st_size)
    assert sizes[0] < 0.6 * sizes[1]
