"""Indexes of every backend, and clustered features to put into them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import numpy as np
import pytest
from qdrant_client import QdrantClient

from search.edge import EdgeIndex, EdgeSettings
from search.index import Features, Index, Payload
from search.index_place import remove_index
from search.index_url import IndexUrl, parse_index_url
from search.server import ServerIndex, ServerSettings

# Helper modules that lie beside the tests are imported by their names.
sys.path.append(str(Path(__file__).parent))


class IndexFactory(Protocol):
    """Makes empty indexes of one backend, and opens what it made again."""

    has_graph: bool

    def __call__(self, dim: int, **settings: Any) -> Index: ...

    def reopen(self, index: Index) -> Index: ...


class EdgeFactory:
    """Embedded indexes in folders of their own; closes them at the end."""

    has_graph = True

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


class ServerFactory:
    """Collections on a server, or in qdrant-client's local mode; removes them at the end."""

    def __init__(self, server: IndexUrl | QdrantClient, *, has_graph: bool = False) -> None:
        self.has_graph = has_graph
        self._server = server
        self._prefix = f"attrib-test-{uuid4().hex[:12]}"
        self._made: list[ServerIndex] = []

    def __call__(self, dim: int, **settings: Any) -> ServerIndex:
        # The contract is of what is stored as it was given; what float16 and quantization cost in
        # likeness is tested by itself.
        settings = {"datatype": "float32", "quantization": "none", **settings}
        name = f"{self._prefix}-{len(self._made)}"
        self._made.append(ServerIndex.create(self._server, name, dim, ServerSettings(**settings)))
        return self._made[-1]

    def reopen(self, index: Index) -> ServerIndex:
        assert isinstance(index, ServerIndex)
        index.close()
        return ServerIndex.open(self._server, index.collection)

    def close(self) -> None:
        for index in self._made:
            index.close()
            with ServerIndex.open(self._server, index.collection) as again:
                again.drop()


def _in_process(folder: Path) -> ServerFactory:
    return ServerFactory(QdrantClient(":memory:"))


def _real(folder: Path) -> ServerFactory:
    return ServerFactory(parse_index_url(os.environ["ATTRIB_TEST_QDRANT_URL"]), has_graph=True)


class Factory(IndexFactory, Protocol):
    def close(self) -> None: ...


# Another backend is one more entry: what makes a factory, given a temporary folder.
BACKENDS: dict[str, Callable[[Path], Factory]] = {
    "edge": EdgeFactory,
    "local": _in_process,
    "rest": lambda folder: ServerFactory(parse_index_url(_stand_in().url(grpc=False))),
    "grpc": lambda folder: ServerFactory(parse_index_url(_stand_in().url(grpc=True))),
}
if os.environ.get("ATTRIB_TEST_QDRANT_URL"):
    BACKENDS["server"] = _real


def load_stand_in() -> Any:
    """The module of the Qdrant stand-in, which lies beside this file with what it needs."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("qdrant_stand_in")
    finally:
        sys.path.remove(folder)


_running: list[Any] = []


def _stand_in() -> Any:
    """One for all the tests of a run; `_stop_stand_in` ends it."""
    if not _running:
        _running.append(load_stand_in().Server().__enter__())
    return _running[0]


@pytest.fixture(scope="session", autouse=True)
def _stop_stand_in() -> Iterator[None]:
    yield
    while _running:
        _running.pop().__exit__(None, None, None)


@pytest.fixture
def qdrant() -> Iterator[Any]:
    """A Qdrant stand-in of the test's own: it may be made to fail."""
    with load_stand_in().Server() as server:
        yield server


@pytest.fixture
def url(qdrant: Any, request: pytest.FixtureRequest) -> IndexUrl:
    return parse_index_url(qdrant.url(grpc=getattr(request, "param", True)))


@pytest.fixture
def real_or_stand_in(qdrant: Any, tmp_path: Path) -> Iterator[IndexUrl]:
    """The real server where there is one; what was put there is removed again."""
    given = os.environ.get("ATTRIB_TEST_QDRANT_URL")
    yield parse_index_url(given or qdrant.url(grpc=True))
    for path in tmp_path.glob("*/collections/*/index.json"):
        remove_index(path.parent)


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
