"""Indexes of every backend, and clustered features to put into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import numpy as np
import pytest

from search.edge import EdgeIndex, EdgeSettings
from search.index import Features, Index, Payload


class IndexFactory(Protocol):
    """Makes empty indexes of one backend, and opens what it made again."""

    def __call__(self, dim: int, **settings: Any) -> Index: ...

    def reopen(self, index: Index) -> Index: ...


class EdgeFactory:
    """Embedded indexes in folders of their own; closes them at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[EdgeIndex] = []

    def __call__(self, dim: int, **settings: Any) -> EdgeIndex:
        folder = self._folder / f"index{len(self._made)}"
        return self._keep(EdgeIndex.create(folder, dim, EdgeSettings(**settings)))

    def reopen(self, index: Index) -> EdgeIndex:
        assert isinstance(index, EdgeIndex)
        index.close()
        return self._keep(EdgeIndex.open(index.folder))

    def close(self) -> None:
        for index in self._made:
            index.close()

    def _keep(self, index: EdgeIndex) -> EdgeIndex:
        self._made.append(index)
        return index


# Another backend is one more entry: a factory class that takes a temporary folder.
BACKENDS: dict[str, Callable[[Path], EdgeFactory]] = {"edge": EdgeFactory}


@pytest.fixture(params=list(BACKENDS))
def index_factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IndexFactory]:
    factory = BACKENDS[request.param](tmp_path)
    yield factory
    factory.close()


@pytest.fixture(scope="module", params=list(BACKENDS))
def shared_index_factory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IndexFactory]:
    """For collections that are dear to build and only read."""
    factory = BACKENDS[request.param](tmp_path_factory.mktemp("shared"))
    yield factory
    factory.close()


@dataclass(frozen=True)
class Points:
    """Points to put in, with what a brute-force search needs."""

    ids: list[UUID]
    vectors: Features
    payloads: list[Payload]

    def put_into(self, index: Index) -> None:
        index.upsert(self.ids, self.vectors, self.payloads)

    def nearest(self, query: Features, limit: int, among: list[int] | None = None) -> list[int]:
        """Brute force: rows of the nearest points, ties by id."""
        rows = range(len(self.ids)) if among is None else among
        similarities = self.vectors @ query
        return sorted(rows, key=lambda row: (-similarities[row], self.ids[row].bytes))[:limit]


class PointsMaker(Protocol):
    def __call__(self, seed: int, n: int, dim: int, **options: Any) -> Points: ...


@pytest.fixture(scope="session")
def make_points() -> PointsMaker:
    """Clustered points with payloads; options: clusters, spread."""
    return _make_points


def _make_ids(rng: np.random.Generator, n: int) -> list[UUID]:
    return [UUID(bytes=rng.bytes(16)) for _ in range(n)]


def _clustered(seed: int, n: int, dim: int, clusters: int = 50, spread: float = 0.5) -> Features:
    """(n, dim) features around random centres, as those of real images are."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dim))
    rows = centres[rng.integers(0, clusters, n)] + spread * rng.normal(size=(n, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def _make_points(seed: int, n: int, dim: int, **options: Any) -> Points:
    vectors = _clustered(seed, n, dim, **options)
    rng = np.random.default_rng(seed + 1)
    payloads: list[Payload] = [
        {
            "key": f"key-{i}",
            "dataset": "all",
            "creator": f"creator-{rng.integers(0, 7)}",
            "licence": f"licence-{rng.integers(0, 3)}",
        }
        for i in range(n)
    ]
    return Points(_make_ids(rng, n), vectors, payloads)
