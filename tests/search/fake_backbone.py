"""A deterministic, countable backbone for tests of the pipeline: real pixels in, no torch.

Run as a program it ingests, so that tests can kill it:
    python fake_backbone.py DATA DATASET SHARD_SIZE SOURCE...
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embed.backbones import Backbone
from embed.model import AttributionModel, identity_model
from embed.preprocess import Preprocessing
from ingest.decode import DecodeLimits
from ingest.source import open_sources
from search.collection import Collection
from search.ingestion import IngestReport, IngestSettings, ingest

DIM = 24
SIDE = 16

BACKBONE = Backbone(
    name="fake",
    family="timm",
    architecture="fake",
    revision="1",
    dim=DIM,
    preprocessing=Preprocessing(SIDE, SIDE, "bilinear", (0.5,) * 3, (0.5,) * 3),
    licence="CC0-1.0",
    weights_source="",
    weights_file="",
    weights_hash="f" * 64,
)


class FakeEmbedder:
    """A fixed random projection of the pixels; counts its batches and images.

    `pause_s`: how long a batch takes; the first one is announced on stdout.
    """

    def __init__(self, pause_s: float = 0) -> None:
        self.batches: list[int] = []
        self._pause_s = pause_s
        rng = np.random.default_rng(0)
        self._matrix = rng.normal(size=(SIDE * SIDE * 3, DIM)).astype(np.float32)

    @property
    def images(self) -> int:
        return sum(self.batches)

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert pixels.shape[1:] == (SIDE, SIDE, 3)
        assert pixels.dtype == np.uint8
        if self._pause_s:
            if not self.batches:
                print("embedding", flush=True)
            time.sleep(self._pause_s)
        self.batches.append(len(pixels))
        flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 255 - 0.5
        # One row at a time: equal bits whatever the batch.
        return np.stack([row @ self._matrix for row in flat])


def fake_model() -> AttributionModel:
    return identity_model(BACKBONE)


def run(
    data: Path,
    sources: list[str],
    *,
    dataset: str = "set",
    shard_size: int = 16,
    force: bool = False,
    embedder: FakeEmbedder | None = None,
    max_pixels: int = 100_000_000,
    **settings: Any,
) -> IngestReport:
    embedder = embedder or FakeEmbedder()
    limits = DecodeLimits(max_pixels=max_pixels)
    with Collection.create(data, None, fake_model, wait_s=10) as collection:
        return ingest(
            collection,
            lambda: embedder,
            open_sources(sources),
            dataset,
            settings=IngestSettings(
                shard_size=shard_size, batch_size=5, decode_threads=2, limits=limits, **settings
            ),
            force=force,
        )


if __name__ == "__main__":
    data, dataset, size, *sources = sys.argv[1:]
    slow = FakeEmbedder(pause_s=0.02)
    print(run(Path(data), sources, dataset=dataset, shard_size=int(size), embedder=slow))
