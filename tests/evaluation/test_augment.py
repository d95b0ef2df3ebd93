"""Augmented images: the same for the same seed, different otherwise, and still of their image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.augment import GENERATED, SIDE, STRONG, Variation, augmented

MILD = Variation(smallest=64, largest=128, crop=0.5, colour=0.3, blurred=0.5, noise=0)


def quarters(width: int = 300, height: int = 200) -> Image.Image:
    """Four plain colours."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (200, 40, 40)
    pixels[: height // 2, width // 2 :] = (40, 200, 40)
    pixels[height // 2 :, : width // 2] = (40, 40, 200)
    pixels[height // 2 :, width // 2 :] = (200, 200, 40)
    return Image.fromarray(pixels)


def test_same_seed_same_pixels_whatever_was_drawn_before() -> None:
    image = quarters()
    first = np.asarray(augmented(image, 7))
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert (np.asarray(augmented(image, 7)) == first).all()
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws are moved
    others = [np.asarray(augmented(image, seed)) for seed in range(8, 14)]
    assert all((other != first).any() for other in others)


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (64, 64), (900, 5)])
def test_any_shape_ends_as_a_square(size: tuple[int, int]) -> None:
    for seed in range(4):
        image = augmented(Image.new("RGB", size, (10, 120, 240)), seed)
        assert (image.size, image.mode) == ((SIDE, SIDE), "RGB")


def test_it_is_still_the_image_and_never_its_pixels() -> None:
    image = quarters()
    plain = np.asarray(image.resize((SIDE, SIDE)), np.float32)
    grey = np.full_like(plain, plain.mean())
    for seed in range(10):
        found = np.asarray(augmented(image, seed, MILD), np.float32)
        mirrored = found[:, ::-1]
        nearest = min(np.abs(found - plain).mean(), np.abs(mirrored - plain).mean())
        assert 2 < nearest < np.abs(grey - plain).mean()


def test_it_was_small_once() -> None:
    """Noise of single pixels does not survive 128 pixels a side."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    for seed in range(4):
        found = np.asarray(augmented(Image.fromarray(noise), seed, MILD).convert("L"), np.float32)
        spectrum = np.abs(np.fft.fft2(found - found.mean()))
        fine = spectrum[SIDE // 4 + 16 : SIDE // 2].mean()  # above what 128 pixels can hold
        assert fine < 0.1 * spectrum[4 : SIDE // 8].mean()


def test_noise_only_where_it_is_asked_for() -> None:
    grey = Image.new("RGB", (300, 300), (128, 128, 128))

    def spread(noise: float, seed: int) -> float:
        variation = replace(STRONG, noise=noise)
        return float(np.asarray(augmented(grey, seed, variation), np.float32).std())

    for seed in range(4):
        quiet, some, more = (spread(noise, seed) for noise in (0, 12, 36))
        assert quiet < 1
        assert 3 < some < 14  # enlarging and JPEG take some of the noise away
        assert 2 * some < more < 40
    assert (np.asarray(augmented(grey, 3)) == np.asarray(augmented(grey, 3, GENERATED))).all()
    one, same = (np.asarray(augmented(grey, 5, STRONG)) for _ in range(2))
    assert (one == same).all()
