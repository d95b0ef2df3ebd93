"""Collections to build anew with another model, and what they answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_backbone as fake
import numpy as np
from ingested import points_of

from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel
from search.collection import Collection

OUT = 11  # unlike the backbone's


def tuned(seed: int = 1, **changes: Any) -> AttributionModel:
    rng = np.random.default_rng(seed)
    real, synth = (
        Mapper.linear(rng.normal(size=(OUT, fake.DIM)), rng.normal(size=OUT)) for _ in range(2)
    )
    values: dict[str, Any] = {"name": "tuned", "backbone": fake.BACKBONE, **changes}
    return AttributionModel(mappers=MapperPair(real, synth), **values)


def ingest(data: Path, source: Path, model: AttributionModel | None = None, **options: Any) -> None:
    embedder = fake.FakeEmbedder()
    first = fake.fake_model if model is None else lambda: model
    with Collection.create(data, None, first, wait_s=10) as collection:
        fake.ingest(
            collection,
            lambda: embedder,
            fake.open_sources([str(source)]),
            "set",
            settings=fake.IngestSettings(shard_size=16, batch_size=5, decode_threads=1),
            **options,
        )


def answers(collection: Collection) -> list[Any]:
    rng = np.random.default_rng(3)
    base = rng.normal(size=(4, fake.DIM)).astype(np.float32)
    found = collection.attribute(collection.model.mappers.synth(base), list("abcd"), k=9)
    written = [answer.to_dict() for answer in found]
    for answer in written:
        answer["index"].pop("folder")
    return written


def state(data: Path, name: str | None = None) -> dict[str, Any]:
    with Collection.open(data, name=name, wait_s=10) as collection:
        sample = collection.index.sample()
        return {
            "points": points_of(collection),
            "sample": [(str(i), v.tobytes()) for i, v in zip(*vars(sample).values(), strict=True)],
            "answers": answers(collection),
            "model": collection.model.fingerprint,
        }


def keys(data: Path, name: str | None = None) -> list[str]:
    return sorted(payload["key"] for _, payload in state(data, name)["points"].values())


class Hook:
    """A progress that does something while the new collection is being built."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.started: int | None = None
        self.images = 0
        self.acted = 0

    def start(self, pending: int | None) -> None:
        self.started = pending

    def advance(self, images: int) -> None:
        self.images += images
        if not self.acted:
            self._act()
        self.acted += 1

    def building(self) -> None:
        pass
