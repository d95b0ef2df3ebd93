"""What every index backend promises of points that are left out (`without`)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import pytest

from ingest.errors import UsageError

DIM = 24
LEFT_OUT = [
    {"creator": ["creator-1"]},
    {"creator": ["creator-1", "creator-4", "nobody"]},
    {"creator": ["creator-1", "creator-4"], "licence": ["licence-0"]},
    {"key": ["key-0", "key-699"]},
]


@pytest.fixture(scope="module")
def points(make_points: Any) -> Any:
    return make_points(1, 700, DIM)


@pytest.fixture(scope="module")
def filled(shared_index_factory: Any, points: Any) -> Any:
    index = shared_index_factory(DIM)
    points.put_into(index)
    index.flush()
    return index


def matching(points: Any, where: Any) -> set[int]:
    return {
        row
        for row, payload in enumerate(points.payloads)
        if all(payload[field] in values for field, values in where.items())
    }


@pytest.mark.parametrize("without", LEFT_OUT)
@pytest.mark.parametrize("where", [None, {"licence": ["licence-0", "licence-2"]}])
@pytest.mark.parametrize("exact", [False, True])
def test_what_matches_in_every_field_is_left_out(
    filled: Any, points: Any, where: Any, without: Any, exact: bool
) -> None:
    rows = sorted(matching(points, where or {}) - matching(points, without))
    assert 0 < len(rows) < len(matching(points, where or {}))
    assert filled.count(where, without=without) == len(rows)
    scrolled = [uuid for page in filled.scroll(where, without=without, batch=99) for uuid in page]
    assert scrolled == sorted(points.ids[row] for row in rows)
    for limit in (20, 10**6):
        query = points.vectors[next(iter(matching(points, without)))]  # its own point must not come
        [hits] = filled.search(query[None], limit, where=where, without=without, exact=exact)
        assert list(hits.ids) == [points.ids[row] for row in points.nearest(query, limit, rows)]


def test_scroll_from_an_id_on(filled: Any, points: Any) -> None:
    left = sorted(
        points.ids[row] for row in set(range(700)) - matching(points, {"creator": ["creator-1"]})
    )
    for start in (left[40], UUID(int=left[40].int + 1)):
        pages = filled.scroll(without={"creator": ["creator-1"]}, batch=30, start=start)
        assert [uuid for page in pages for uuid in page] == [i for i in left if i >= start]


@pytest.mark.parametrize("without", [None, {}, {"creator": []}, {"creator": ["nobody"]}])
def test_nothing_is_left_out(filled: Any, points: Any, without: Any) -> None:
    assert filled.count(without=without) == 700
    assert filled.count({"creator": ["creator-1"]}, without=without) == len(
        matching(points, {"creator": ["creator-1"]})
    )
    [hits] = filled.search(points.vectors[:1], 10**6, without=without)
    assert set(hits.ids) == set(points.ids)
    assert sum(map(len, filled.scroll(without=without))) == 700


def test_everything_is_left_out(filled: Any, points: Any) -> None:
    everything = {"dataset": ["all"]}
    assert filled.count(without=everything) == 0
    assert filled.count({"creator": ["creator-1"]}, without=everything) == 0
    assert list(filled.search(points.vectors[:1], 5, without=everything)[0].ids) == []
    assert list(filled.scroll(without=everything)) == []
    both = {"where": {"creator": ["creator-1"]}, "without": {"creator": ["creator-1"]}}
    assert filled.count(**both) == 0
    assert list(filled.search(points.vectors[:1], 5, **both)[0].ids) == []


def test_points_without_the_field_stay(index_factory: Any) -> None:
    index = index_factory(2)
    ids = [UUID(int=i) for i in range(1, 5)]
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
    index.upsert(ids, vectors, [{}, {"creator": "a"}, {"creator": None}, {"creator": ["a", "b"]}])
    [hits] = index.search(vectors[:1], 4, without={"creator": ["a"]})
    assert list(hits.ids) == [ids[0], ids[2]]
    assert index.count(without={"creator": ["b"]}) == 3


def test_wrong_filters_are_refused(filled: Any, points: Any) -> None:
    for call in (
        lambda: filled.count(without={"caption": ["x"]}),
        lambda: filled.search(points.vectors[:1], 1, without={"caption": ["x"]}),
        lambda: filled.scroll(without={"caption": ["x"]}),
    ):
        with pytest.raises(UsageError, match=r"^cannot filter by 'caption'; choose among creator,"):
            call()
    with pytest.raises(UsageError, match=r"^the filter on creator must be a list of texts$"):
        filled.count(without={"creator": "text"})


def test_what_is_left_is_searched_with_full_recall_in_a_built_collection(
    shared_index_factory: Any, make_points: Any
) -> None:
    dim, n = 32, 20_000 if shared_index_factory.has_graph else 2_000
    points = make_points(4, n, dim, clusters=100)
    index = shared_index_factory(dim, ef_construct=48)
    index.upsert(points.ids, points.vectors, points.payloads)
    index.build()
    queries = make_points(6, 20, dim, clusters=100).vectors
    for without in ({"creator": ["creator-3"]}, {"key": ["key-5"]}):
        rows = sorted(set(range(n)) - matching(points, without))
        best = -np.sort(-(queries @ points.vectors[rows].T), axis=1)[:, :50]
        for hits, expected in zip(index.search(queries, 50, without=without), best, strict=True):
            np.testing.assert_allclose(hits.similarities, expected, atol=1e-5)
            assert len(set(hits.ids)) == 50
