"""Scans of many queries at once: what each is told alone, when all of its points are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from search.edge import EdgeIndex, EdgeSettings
from search.edge_scan import Scan, fits
from search.index import Features, Payload

DIM = 48


def unit(rows: Any) -> Features:
    found: Features = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture(params=[{}, {"datatype": "float16"}, {"quantization": "int8"}])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EdgeIndex]:
    with EdgeIndex.create(tmp_path / "index", DIM, EdgeSettings(**request.param)) as made:
        yield made


def put(index: EdgeIndex, random: np.random.Generator, count: int) -> Features:
    """Equal points among them, and some that differ by less than rounding."""
    vectors = random.normal(size=(count, DIM))
    vectors[count // 2 : count // 2 + 9] = vectors[0]
    vectors[-5:] = vectors[1:6] + 1e-7 * random.normal(size=(5, DIM))
    payloads: list[Payload] = [{"key": str(number)} for number in range(count)]
    rows = unit(vectors)
    index.upsert([UUID(bytes=random.bytes(16)) for _ in range(count)], rows, payloads)
    return rows


def check(index: EdgeIndex, queries: Features) -> None:
    points = index.count()
    together = index.search(queries, points, exact=True)
    assert len(together) == len(queries)
    for query, hits in zip(queries, together, strict=True):
        (alone,) = index.search(query[None], points, exact=True)
        assert list(hits.ids) == list(alone.ids)
        np.testing.assert_array_equal(hits.similarities, alone.similarities)


def test_together_is_as_alone(index: EdgeIndex, random: np.random.Generator) -> None:
    rows = put(index, random, 400)
    queries = np.concatenate([unit(random.normal(size=(70, DIM))), rows[:6]])
    check(index, queries)
    # What changes is seen: points go, come and are replaced.
    (first,) = index.search(queries[:1], 30, exact=True)
    index.delete(list(first.ids))
    check(index, queries)
    put(index, random, 60)
    check(index, queries)
    (nearest,) = index.search(queries[:1], 1, exact=True)
    index.upsert([nearest.ids[0]], -queries[:1], [{"key": "another"}])
    check(index, queries)
    assert index.search(queries, index.count(), exact=True)[0].ids[-1] == nearest.ids[0]


@dataclass(frozen=True)
class Point:
    """A scored point that knows whether it was asked for its name."""

    score: float
    name: UUID
    asked: list[UUID]

    @property
    def id(self) -> UUID:
        self.asked.append(self.name)
        return self.name


def test_only_points_that_rounding_may_move_are_asked_for_their_names() -> None:
    """By hand: similarities 1, 0.6 and 0.6 + 1e-6 to the query (1, 0), and 0."""
    ids = [UUID(int=number + 1) for number in range(4)]
    vectors = np.array([[0.6, 0.8], [0, 1], [1, 0], [0.600001, 0.8]], np.float32)
    asked: list[UUID] = []
    # Edge has the two in the other order.
    found = [
        Point(score, ids[number], asked)
        for number, score in ((2, 1.0), (0, 0.6000005), (3, 0.6000004), (1, 0.0))
    ]
    scan = Scan(b"".join(one.bytes for one in ids), vectors)
    (hits,) = scan.hits(np.array([[1, 0]], np.float32), [found])
    assert hits is not None
    assert [(-score, UUID(bytes=name)) for score, name in hits] == [
        (point.score, point.name) for point in found
    ]
    assert sorted(asked) == [ids[0], ids[3]]


@pytest.mark.parametrize("scores", [(1.0, 0.7, 0.0), (1.0, 0.6)])
def test_products_that_are_not_those_of_edge_are_not_relied_on(scores: tuple[float, ...]) -> None:
    """Another score than ours, and a point that is not there."""
    ids = [UUID(int=number + 1) for number in range(3)]
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    scan = Scan(b"".join(one.bytes for one in ids), vectors)
    found = [Point(score, one, []) for score, one in zip(scores, ids, strict=False)]
    assert scan.hits(np.array([[1, 0]], np.float32), [found]) == [None]


def test_what_is_large_or_asked_for_once_is_not_held() -> None:
    assert fits(600, 1280, 32)
    assert not fits(600, 1280, 1)
    assert not fits(20_000, 1280, 32)
