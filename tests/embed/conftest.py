"""What the tests of this room share: a weights folder and a home of their own, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIB_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("ATTRIB_HOME", str(tmp_path / "home"))
    (tmp_path / "weights").mkdir()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The weights folder, empty."""
    return tmp_path / "weights"


def random_pixels(n: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random images, uint8 (n, side, side, 3): noise alone looks like nothing at all."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(s).resize((side, side))) for s in small])
