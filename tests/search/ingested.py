"""Pictures to ingest, and everything that an ingest leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embed.shards import read_shard, read_thumbnails
from search.collection import Collection


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def images(folder: Path, count: int, *, start: int = 0, seed: int = 0) -> Path:
    """Numbered pictures with their metadata; another seed gives other ones under the same names."""
    for i in range(start, start + count):
        draw(folder / f"image {i:04d}.png", seed + i)
        (folder / f"image {i:04d}.json").write_text(
            json.dumps({"caption": f"picture {i}", "creator": f"creator {i % 7}"})
        )
    return folder


def points_of(collection: Collection) -> dict[str, tuple[bytes, Any]]:
    """Vector and payload of each point."""
    points = {}
    for ids in collection.index.scroll():
        vectors = collection.index.vectors(ids)
        payloads = collection.index.fetch(ids)
        for point, vector, payload in zip(ids, vectors, payloads, strict=True):
            points[str(point)] = (vector.tobytes(), payload)
    return points


def state(data: Path) -> dict[str, Any]:
    """Everything that an ingest leaves: points with vectors and payloads, shards, rejects."""
    with Collection.open(data, wait_s=10) as collection:
        shards = {}
        for row in collection.ledger.shards():
            folder = collection.folder.features(row.dataset)
            features, rows = read_shard(folder, row.number)
            thumbnails = read_thumbnails(folder, row.number, [r.key for r in rows])
            shards[row.number] = (np.asarray(features).tobytes(), rows, sorted(thumbnails.items()))
        sample = collection.index.sample()
        return {
            "points": points_of(collection),
            "shards": shards,
            "rejects": collection.ledger.rejects(),
            "sample": {
                str(i): v.tobytes() for i, v in zip(sample.ids, sample.vectors, strict=True)
            },
        }
