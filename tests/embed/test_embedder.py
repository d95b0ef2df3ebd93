from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from embed.backbones import BACKBONES
from embed.embedder import Embedder
from ingest.errors import UsageError, WeightsError

from .conftest import random_pixels

SIDE = 64
NAMED = BACKBONES["efficientnet-lite0"]
BACKBONE = replace(NAMED, preprocessing=replace(NAMED.preprocessing, resize=SIDE, crop=SIDE))
"""The real weights on small pictures: a convolutional network takes any size, and faster."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # Two threads on a machine that others use wait for each other more than they compute.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(BACKBONE, device="cpu", precision="fp32")


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("nd,nd->n", a, b) / scale


def test_attributes(embedder: Embedder) -> None:
    assert (embedder.dim, embedder.device, embedder.precision) == (1280, "cpu", "fp32")
    assert embedder.weights_hash == BACKBONE.weights_hash


def test_batches_do_not_change_features(embedder: Embedder) -> None:
    pixels = random_pixels(16, SIDE)
    whole = embedder.embed(pixels)
    assert whole.shape == (16, 1280)
    assert whole.dtype == np.float32
    for size in (1, 7):
        parts = [embedder.embed(pixels[i : i + size]) for i in range(0, 16, size)]
        found = np.concatenate(parts)
        np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)
        assert cosines(found, whole).min() > 0.99999


def test_deterministic(embedder: Embedder) -> None:
    pixels = random_pixels(4, SIDE, seed=1)
    np.testing.assert_array_equal(embedder.embed(pixels), embedder.embed(pixels))


def test_features_are_not_normalised(embedder: Embedder) -> None:
    norms = np.linalg.norm(embedder.embed(random_pixels(3, SIDE)), axis=1)
    assert (norms > 2).all()


def test_rows_keep_their_order(embedder: Embedder) -> None:
    pixels = random_pixels(5, SIDE, seed=2)
    forth, back = embedder.embed(pixels), embedder.embed(pixels[::-1])
    np.testing.assert_allclose(back[::-1], forth, rtol=1e-4, atol=1e-4)


def test_bf16_stays_close(embedder: Embedder) -> None:
    pixels = random_pixels(2, SIDE, seed=3)
    half = Embedder(BACKBONE, device="cpu", precision="bf16")
    assert half.precision == "bf16"
    found = half.embed(pixels)
    assert found.dtype == np.float32
    assert cosines(found, embedder.embed(pixels)).min() > 0.99


def test_read_only_pixels(embedder: Embedder) -> None:
    pixels = random_pixels(1, SIDE)
    pixels.setflags(write=False)
    assert embedder.embed(pixels).shape == (1, 1280)


def test_no_images(embedder: Embedder) -> None:
    assert embedder.embed(np.zeros((0, SIDE, SIDE, 3), np.uint8)).shape == (0, 1280)


def test_other_pixels_are_refused(embedder: Embedder) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the text is checked whole)
        embedder.embed(np.zeros((2, 3, SIDE, SIDE), np.uint8))
    assert str(caught.value) == "pixels must be uint8 (n, 64, 64, 3), not uint8 (2, 3, 64, 64)"
    with pytest.raises(ValueError, match=r"not float64 \(1, 64, 64, 3\)$"):
        embedder.embed(np.zeros((1, SIDE, SIDE, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8'; one of auto, fp32, bf16, fp16"),
        ({"threads": 0}, "threads must be 1 or more, not 0"),
        ({"device": "gpu"}, "device 'gpu' is not available; `--device cpu` always is"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available; `--device cpu` always is"),
    ],
)
def test_wrong_calls(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Embedder(BACKBONE, **options)  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_threads_share_a_batch(embedder: Embedder) -> None:
    pixels = random_pixels(11, SIDE, seed=4)
    for threads in (1, 3):
        found = Embedder(BACKBONE, device="cpu", threads=threads).embed(pixels)
        np.testing.assert_array_equal(found, embedder.embed(pixels))  # to the last bit
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1, [1]),
        (2, [1, 1]),
        (3, [2, 1]),
        (4, [2, 2]),
        (5, [3, 2]),
        (8, [4, 4]),
        (9, [3, 2, 2, 2]),
        (14, [4, 4, 3, 3]),
        (32, [4] * 8),
    ],
)
def test_a_cpu_embeds_a_batch_in_parts_that_are_alike(
    n: int, sizes: list[int], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No core is left without work while another one has four images."""
    seen: list[int] = []
    forward = embedder._forward

    def counted(pixels: np.ndarray) -> np.ndarray:
        seen.append(len(pixels))
        return forward(pixels)

    monkeypatch.setattr(embedder, "_forward", counted)
    crop = embedder.backbone.preprocessing.crop
    embedder.embed(np.zeros((n, crop, crop, 3), np.uint8))
    assert sorted(seen, reverse=True) == sizes


def test_one_reversed_image(embedder: Embedder) -> None:
    pixels = random_pixels(1, SIDE)
    np.testing.assert_array_equal(embedder.embed(pixels[::-1]), embedder.embed(pixels))


def test_a_wrong_dimension_is_found_out() -> None:
    wrong = Embedder(replace(BACKBONE, dim=1000), device="cpu")
    with pytest.raises(WeightsError) as caught:
        wrong.embed(random_pixels(1, SIDE))
    assert str(caught.value) == "efficientnet-lite0 gave features (1280,), not (1000,)"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gpu_agrees_with_cpu(embedder: Embedder, precision: str) -> None:
    pixels = random_pixels(9, SIDE)
    gpu = Embedder(BACKBONE, device="cuda:0", precision=precision)  # type: ignore[arg-type]
    limit = 0.99999 if precision == "fp32" else 0.99
    assert cosines(gpu.embed(pixels), embedder.embed(pixels)).min() > limit
