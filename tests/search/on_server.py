"""Data folders whose index is on a server, and what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_backbone as fake
import pytest
from ingested import points_of

from search.collection import Collection
from search.edge_settings import EdgeSettings
from search.index_url import IndexUrl
from search.server_settings import ServerSettings

# Exactly as stored: what float16 costs is no matter of this file.
EXACT = ServerSettings(datatype="float32", quantization="none")


def ingest(data: Path, source: Path, url: IndexUrl | None, **options: Any) -> Any:
    settings = EXACT if url is not None else EdgeSettings()
    settings = options.pop("settings", settings)
    embedder = fake.FakeEmbedder()
    with Collection.create(
        data, None, fake.fake_model, settings=settings, index_url=url, wait_s=10
    ) as collection:
        return fake.ingest(
            collection,
            lambda: embedder,
            fake.open_sources([str(source)]),
            "set",
            settings=fake.IngestSettings(shard_size=16, batch_size=5, decode_threads=1),
            **options,
        )


def state(data: Path) -> dict[str, Any]:
    """Points, sample and answers, without what names the backend."""
    with Collection.open(data, wait_s=10) as collection:
        base = fake.FakeEmbedder()._matrix[:4]
        found = collection.attribute(
            collection.model.mappers.synth(base / 9), list("abcd"), k=9, group_by="creator"
        )
        answers = [answer.to_dict() for answer in found]
        for answer in answers:
            del answer["index"]
        sample = collection.index.sample()
        return {
            "points": points_of(collection),
            "sample": [str(uuid) for uuid in sample.ids],
            "answers": answers,
        }


def close_to(found: Any, expected: Any) -> None:
    """Equal, but for the last digits of numbers: two engines add in different orders."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, abs=2e-6)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close_to(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close_to(one, other)
    else:
        assert found == expected
