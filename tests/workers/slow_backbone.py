"""A worker process whose backbone is a fixed projection: real processes, without torch.

Run by a supervisor, as `workers.child` is:
    python slow_backbone.py PAUSE_S WEIGHTS MARK CONFIG
A batch takes PAUSE_S; WEIGHTS is its weights' hash; an image whose first pixel is MARK (as #rrggbb)
kills the process, as a broken driver would.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.backbones import Backbone
from embed.model import AttributionModel, identity_model
from embed.preprocess import Preprocessing

DIM = 24
SIDE = 8
WEIGHTS = "f" * 64

BACKBONE = Backbone(
    name="projection",
    family="timm",
    architecture="projection",
    revision="1",
    dim=DIM,
    preprocessing=Preprocessing(SIDE, SIDE, "bilinear", (0.5,) * 3, (0.5,) * 3),
    licence="CC0-1.0",
    weights_source="",
    weights_file="",
    weights_hash=WEIGHTS,
)


def model() -> AttributionModel:
    return identity_model(BACKBONE)


class Projection:
    device = "cpu"

    def __init__(self, pause_s: float = 0.0, weights: str = WEIGHTS, mark: str = "") -> None:
        self.weights_hash = weights
        self._pause_s = pause_s
        self._mark = tuple(bytes.fromhex(mark.removeprefix("#"))) if mark else None
        rng = np.random.default_rng(0)
        self._matrix = rng.normal(size=(SIDE * SIDE * 3, DIM)).astype(np.float32)

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._mark and any(tuple(image[0, 0]) == self._mark for image in pixels):
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(self._pause_s)
        flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 255 - 0.5
        # One row at a time: equal bits whatever the batch.
        return np.stack([row @ self._matrix for row in flat])


def program(pause_s: float = 0.0, weights: str = WEIGHTS, mark: str = "") -> list[str]:
    return [sys.executable, str(Path(__file__)), str(pause_s), weights, mark]


if __name__ == "__main__":
    from workers.child import ChildConfig, main

    pause, weights_hash, marked, config = sys.argv[1:]
    backbone = Projection(float(pause), weights_hash, marked)
    main(ChildConfig.loads(config), lambda model: backbone)
