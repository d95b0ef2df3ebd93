"""What every index backend promises (`search.index.Index`)."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pytest

from ingest.errors import IndexFailedError, UsageError

NAMESPACE = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
DIM = 24


def unit(*numbers: float) -> Any:
    row = np.array([numbers], dtype=np.float32)
    return row / np.linalg.norm(row)


def an_id(name: str) -> UUID:
    return uuid5(NAMESPACE, name)


@pytest.fixture(scope="module")
def points(make_points: Any) -> Any:
    return make_points(1, 700, DIM)


@pytest.fixture(scope="module")
def filled(shared_index_factory: Any, points: Any) -> Any:
    """A small collection that tests only read."""
    index = shared_index_factory(DIM)
    points.put_into(index)
    index.flush()
    return index


# -- putting in and getting back


def test_points_come_back_as_they_went_in(index_factory: Any) -> None:
    index = index_factory(3)
    payloads = [
        {"key": "Ünïcødé 日本 \U0001f5bc", "caption": None, "width": 640, "tags": ["a", "b"]},
        {"key": "", "nested": {"é": [1, 2.5, {"deep": False}]}, "caption": "x" * 50_000},
        {},
    ]
    ids = [UUID(int=0), UUID(int=2**128 - 1), an_id("c")]
    vectors = np.concatenate([unit(1, 2, 3), unit(-1, 0, 0.5), unit(0, 1, 0)])
    index.upsert(ids, vectors, payloads)
    index.flush()
    assert index.fetch(ids) == payloads
    np.testing.assert_array_equal(index.vectors(ids), vectors)
    assert index.fetch([ids[2], an_id("nobody"), ids[0], ids[2]]) == [{}, None, payloads[0], {}]
    assert index.fetch(ids[:1], fields=["width", "absent"]) == [{"width": 640}]
    assert index.vectors([ids[1], ids[0], ids[1]]).tolist() == vectors[[1, 0, 1]].tolist()


def test_upsert_again_changes_nothing(index_factory: Any, points: Any) -> None:
    index = index_factory(DIM)
    for _ in range(2):
        points.put_into(index)
        index.flush()
        assert index.count() == len(points.ids)
    assert index.fetch(points.ids) == points.payloads


def test_upsert_replaces_vector_and_whole_payload(index_factory: Any) -> None:
    index = index_factory(2)
    one = [an_id("one")]
    index.upsert(one, unit(1, 0), [{"key": "k", "creator": "old"}])
    index.upsert(one, unit(0, 1), [{"licence": "new"}])
    assert index.count() == 1
    assert index.fetch(one) == [{"licence": "new"}]
    assert index.vectors(one).tolist() == [[0.0, 1.0]]
    assert index.count({"creator": ["old"]}) == 0
    assert index.count({"licence": ["new"]}) == 1


def test_an_empty_upsert_is_none(index_factory: Any) -> None:
    index = index_factory(2)
    index.upsert([], np.empty((0, 2), dtype=np.float32), [])
    index.flush()
    assert index.count() == 0
    assert index.fetch([]) == []
    assert index.vectors([]).shape == (0, 2)


def _bad_calls() -> dict[str, tuple[list[Any], Any, list[Any], str]]:
    two = [an_id("a"), an_id("b")]
    good = np.concatenate([unit(1, 0), unit(0, 1)])
    nan, infinite, long = good.copy(), good.copy(), good.copy()
    nan[1, 0], infinite[1, 1], long[1] = np.nan, np.inf, [0.0, 1.1]
    none: list[Any] = [{}, {}]
    return {
        "nan": (two, nan, none, "row 1 of vectors has a number that is not finite; "
                "features are L2-normalised"),
        "infinite": (two, infinite, none, "row 1 of vectors has a number that is not finite; "
                     "features are L2-normalised"),
        "norm": (two, long, none, "row 1 of vectors has norm 1.1; features are L2-normalised"),
        "dim": (two, np.ones((2, 3), dtype=np.float32), none,
                "vectors must be an array of shape (n, 2), not (2, 3)"),
        "flat": (two, np.ones(2, dtype=np.float32), none,
                 "vectors must be an array of shape (n, 2), not (2,)"),
        "integers": (two, np.eye(2, dtype=np.int64), none,
                     "vectors must be floating point, not int64"),
        "lengths": (two, good, [{}], "2 ids, 2 vectors and 1 payloads; there must be as many of "
                    "each"),
        "twice": ([two[0], two[0]], good, none, "an id stands twice in one upsert"),
        "no uuid": ([two[0], "b"], good, none, "ids must be UUIDs"),
        "payload": (two, good, [{}, {"x": {1, 2}}], "a payload cannot be stored as JSON: Object of "
                    "type set is not JSON serializable"),
        "payload nan": (two, good, [{}, {"x": float("nan")}], "a payload cannot be stored as JSON: "
                        "Out of range float values are not JSON compliant"),
    }  # fmt: skip


def test_a_refused_upsert_changes_nothing(index_factory: Any) -> None:
    index = index_factory(2)
    for name, (ids, vectors, payloads, message) in _bad_calls().items():
        with pytest.raises(UsageError) as error:
            index.upsert(ids, vectors, payloads)
        assert str(error.value) == message, name
        index.flush()
        assert index.count() == 0, name


def test_nearly_normalised_features_are_normalised(index_factory: Any) -> None:
    index = index_factory(2)
    index.upsert([an_id("a")], unit(1, 1) * np.float32(1.0005), [{}])
    [hits] = index.search(unit(1, 1) * np.float32(0.9995), 1)
    assert hits.similarities[0] == pytest.approx(1.0, abs=1e-6)


def test_vectors_of_an_unknown_id(filled: Any, points: Any) -> None:
    with pytest.raises(IndexFailedError) as error:
        filled.vectors([points.ids[0], UUID(int=7)])
    assert str(error.value) == f"there is no point {UUID(int=7)} in the index"


# -- searching


@pytest.mark.parametrize("exact", [False, True])
def test_search_is_brute_force(filled: Any, points: Any, make_points: Any, exact: bool) -> None:
    queries = make_points(2, 9, DIM).vectors
    for query, hits in zip(queries, filled.search(queries, 33, exact=exact), strict=True):
        expected = points.nearest(query, 33)
        assert hits.similarities.dtype == np.float32
        assert list(hits.similarities) == sorted(hits.similarities, reverse=True)
        np.testing.assert_allclose(hits.similarities, points.vectors[expected] @ query, atol=1e-5)
        assert list(hits.ids) == [points.ids[row] for row in expected]


def test_ties_come_in_order_of_id_and_the_lowest_ids_stay(index_factory: Any) -> None:
    index = index_factory(2)
    ids = [an_id(str(i)) for i in range(300)]
    vectors = np.concatenate([unit(1, 0)] * 299 + [unit(1, 0.1)])
    index.upsert(ids, vectors, [{}] * 300)
    for query in (unit(1, 0), unit(1, 0.2)):
        [hits] = index.search(query, 40)
        first = [ids[299]] if query[0, 1] else []
        assert list(hits.ids) == (first + sorted(ids[:299]))[:40]


def test_a_batch_is_as_its_queries(filled: Any, make_points: Any) -> None:
    queries = make_points(3, 150, DIM).vectors
    batch = filled.search(queries, 5)
    assert len(batch) == 150
    for query, hits in zip(queries, batch, strict=True):
        [alone] = filled.search(query[None], 5)
        assert list(hits.ids) == list(alone.ids)
        np.testing.assert_allclose(hits.similarities, alone.similarities, atol=1e-6)


def test_a_limit_beyond_the_collection(filled: Any, points: Any) -> None:
    [hits] = filled.search(points.vectors[:1], 10**9)
    assert set(hits.ids) == set(points.ids)
    assert len(hits.ids) == len(hits.similarities) == len(points.ids)


def test_search_in_nothing(index_factory: Any) -> None:
    index = index_factory(2)
    [hits] = index.search(unit(1, 0), 5)
    assert (list(hits.ids), hits.similarities.shape) == ([], (0,))
    assert index.search(np.empty((0, 2), dtype=np.float32), 5) == []
    assert index.facet("creator") == {}
    assert list(index.scroll()) == []
    assert index.sample().vectors.shape == (0, 2)
    index.build()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one(filled: Any, points: Any, limit: int) -> None:
    with pytest.raises(UsageError, match=f"^limit must be at least 1, not {limit}$"):
        filled.search(points.vectors[:1], limit)


def test_queries_are_checked(filled: Any) -> None:
    with pytest.raises(UsageError, match=r"^row 0 of queries has norm 0; "):
        filled.search(np.zeros((1, DIM), dtype=np.float32), 1)


# -- filters


def test_where_is_an_and_of_ors(filled: Any, points: Any) -> None:
    where = {"creator": ["creator-1", "creator-4"], "licence": ["licence-0", "nobody's"]}
    rows = [
        row
        for row, payload in enumerate(points.payloads)
        if payload["creator"] in where["creator"] and payload["licence"] in where["licence"]
    ]
    assert 0 < len(rows) < len(points.ids)
    assert filled.count(where) == len(rows)
    scrolled = [uuid for batch in filled.scroll(where) for uuid in batch]
    assert scrolled == sorted(points.ids[row] for row in rows)
    query = points.vectors[5]
    [hits] = filled.search(query[None], 20, where=where)
    assert list(hits.ids) == [points.ids[row] for row in points.nearest(query, 20, rows)]


@pytest.mark.parametrize("where", [None, {}])
def test_no_restriction(filled: Any, points: Any, where: Any) -> None:
    assert filled.count(where) == len(points.ids)
    assert len(filled.search(points.vectors[:1], 10**6, where=where)[0].ids) == len(points.ids)
    assert sum(map(len, filled.scroll(where))) == len(points.ids)


def test_a_field_with_no_value_matches_nothing(filled: Any, points: Any) -> None:
    assert filled.count({"creator": []}) == 0
    assert list(filled.search(points.vectors[:1], 5, where={"creator": []})[0].ids) == []


def test_wrong_filters_are_refused(filled: Any, points: Any) -> None:
    fields = "creator, licence, dataset, sha256, key"
    for call in (
        lambda: filled.count({"caption": ["x"]}),
        lambda: filled.search(points.vectors[:1], 1, where={"caption": ["x"]}),
        lambda: filled.scroll({"caption": ["x"]}),
        lambda: filled.facet("caption"),
    ):
        with pytest.raises(UsageError) as error:
            call()
        assert str(error.value) == f"cannot filter by 'caption'; choose among {fields}"
    for wrong in ("text", [1]):
        with pytest.raises(UsageError) as error:
            filled.count({"creator": wrong})
        assert str(error.value) == "the filter on creator must be a list of texts"


def test_filtered_search_has_full_recall_in_a_built_collection(
    shared_index_factory: Any, make_points: Any
) -> None:
    # Local mode has no graph, and takes minutes for what a server does in a second.
    dim, n = 32, 20_000 if shared_index_factory.has_graph else 2_000
    points = make_points(4, n, dim, clusters=100)
    shares = {"0.1 %": 0.001, "5 %": 0.05, "30 %": 0.3, "80 %": 0.8}
    draw = np.random.default_rng(5).random(n)
    payloads = [{"creator": [name for name, share in shares.items() if at < share]} for at in draw]
    index = shared_index_factory(dim, ef_construct=48)
    index.upsert(points.ids, points.vectors, payloads)
    index.build()
    queries = make_points(6, 20, dim, clusters=100).vectors
    for name, share in shares.items():
        where = {"creator": [name]}
        rows = np.flatnonzero(draw < share)
        assert index.count(where) == len(rows)
        similarities = queries @ points.vectors[rows].T
        best = -np.sort(-similarities, axis=1)[:, :50]
        for hits, expected in zip(index.search(queries, 50, where=where), best, strict=True):
            np.testing.assert_allclose(hits.similarities, expected, atol=1e-5)
            assert len(set(hits.ids)) == len(expected)
    # Without a filter the graph may lose a little, never the nearest ones in bulk.
    found = index.search(queries, 50)
    best = -np.sort(-(queries @ points.vectors.T), axis=1)[:, 49]
    recall = np.mean([
        np.mean(h.similarities >= b - 1e-5) for h, b in zip(found, best, strict=True)
    ])  # fmt: skip
    assert recall >= 0.99


def test_points_put_in_after_a_build_are_found(index_factory: Any, points: Any) -> None:
    index = index_factory(DIM)
    index.upsert(points.ids[:500], points.vectors[:500], points.payloads[:500])
    index.build()
    index.upsert(points.ids[500:], points.vectors[500:], points.payloads[500:])
    for row in (0, 499, 500, 699):
        [hits] = index.search(points.vectors[row : row + 1], 1)
        assert hits.ids[0] == points.ids[row]


# -- counting, listing, deleting


def test_facet(filled: Any, points: Any) -> None:
    creators = [payload["creator"] for payload in points.payloads]
    counts = {name: creators.count(name) for name in set(creators)}
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    assert list(filled.facet("creator").items()) == ordered
    assert len(filled.facet("key", limit=3)) == 3
    assert filled.facet("key", limit=10**9) == {f"key-{i}": 1 for i in range(len(points.ids))}
    assert filled.facet("sha256") == {}


@pytest.mark.parametrize("batch", [1, 99, 700, 5000])
def test_scroll_is_complete_and_ordered(filled: Any, points: Any, batch: int) -> None:
    pages = list(filled.scroll(batch=batch))
    assert all(len(page) == batch for page in pages[:-1])
    assert all(pages)
    assert [uuid for page in pages for uuid in page] == sorted(points.ids)


@pytest.mark.parametrize("where", [None, {"creator": ["creator-1"]}])
def test_scroll_from_an_id_on(filled: Any, points: Any, where: Any) -> None:
    matching = sorted(
        uuid
        for uuid, payload in zip(points.ids, points.payloads, strict=True)
        if where is None or payload["creator"] in where["creator"]
    )
    for start in (matching[0], matching[40], UUID(int=matching[40].int + 1), matching[-1]):
        listed = [uuid for page in filled.scroll(where, batch=30, start=start) for uuid in page]
        assert listed == [uuid for uuid in matching if uuid >= start]
    assert list(filled.scroll(where, start=UUID(int=2**128 - 1))) == []


def test_delete(index_factory: Any, points: Any) -> None:
    index = index_factory(DIM)
    points.put_into(index)
    gone, kept = points.ids[:100], points.ids[100:]
    index.delete([*gone, an_id("nobody"), gone[0]])
    index.delete([])
    index.flush()
    assert index.count() == len(kept)
    assert index.fetch(gone) == [None] * 100
    [hits] = index.search(points.vectors[:1], 10**6)
    assert set(hits.ids) == set(kept)
    assert sum(index.facet("creator").values()) == len(kept)
    index.build()
    assert index.count() == len(kept)


def test_everything_is_there_after_reopening(index_factory: Any, points: Any) -> None:
    index = index_factory(DIM)
    points.put_into(index)
    before = index.sample()
    index = index_factory.reopen(index)
    assert index.dim == DIM
    assert index.count() == len(points.ids)
    assert index.fetch(points.ids) == points.payloads
    np.testing.assert_array_equal(index.vectors(points.ids), points.vectors)
    assert index.facet("dataset") == {"all": len(points.ids)}
    assert list(index.sample().ids) == list(before.ids)


def test_closing_twice(index_factory: Any) -> None:
    index = index_factory(2)
    index.close()
    index.close()
    with pytest.raises(IndexFailedError, match=r"^the index is closed$"):
        index.count()


def test_info(filled: Any, points: Any) -> None:
    info = filled.info()
    assert (info.points, info.dim, info.quantization) == (len(points.ids), DIM, "none")
    assert info.ef > 0
