"""Tars of tiny images, and all that an ingest leaves of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embed.shards import read_shard, read_thumbnails
from search.collection import Collection


def png(seed: int, first: tuple[int, int, int] | None = None) -> bytes:
    """An image of its own for every seed; `first`: the colour of all of it, if given."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    if first is not None:
        pixels[:] = first
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_tar(path: Path, images: dict[str, bytes], again: dict[str, bytes] | None = None) -> Path:
    """`again`: further members, whose names may have been there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in [*images.items(), *(again or {}).items()]:
            for member, content in ((f"{name}.png", data), (f"{name}.txt", f"of {name}".encode())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def make_tars(folder: Path, count: int, images: int, *, bad: int = 0) -> Path:
    """`bad`: images of each tar that are none."""
    for i in range(count):
        members = {f"{j:04d}": png(1000 * i + j) for j in range(images)}
        members |= {f"bad{j}": b"no image" for j in range(bad)}
        make_tar(folder / f"{i:05d}.tar", members)
    return folder


def state(data: Path) -> dict[str, Any]:
    """Everything that an ingest leaves: points with vectors and payloads, shards, rejects."""
    with Collection.open(data, wait_s=20) as collection:
        points = {}
        for ids in collection.index.scroll():
            vectors = collection.index.vectors(ids)
            payloads = collection.index.fetch(ids)
            for point, vector, payload in zip(ids, vectors, payloads, strict=True):
                points[str(point)] = (vector.tobytes(), payload)
        shards = {}
        for row in collection.ledger.shards():
            folder = collection.folder.features(row.dataset)
            features, rows = read_shard(folder, row.number)
            thumbnails = read_thumbnails(folder, row.number, [r.key for r in rows])
            shards[row.number] = (
                row,
                np.asarray(features).tobytes(),
                rows,
                sorted(thumbnails.items()),
            )
        return {"points": points, "shards": shards, "rejects": collection.ledger.rejects()}
