"""What every index backend promises of its sample (`search.index.Index.sample`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

DIM = 24


@pytest.fixture(scope="module")
def points(make_points: Any) -> Any:
    return make_points(1, 700, DIM)


def test_a_small_collection_is_its_own_sample(index_factory: Any, points: Any) -> None:
    index = index_factory(DIM)
    points.put_into(index)
    index.flush()
    sample = index.sample()
    assert set(sample.ids) == set(points.ids)
    row_of = {uuid: row for row, uuid in enumerate(points.ids)}
    np.testing.assert_array_equal(
        sample.vectors, points.vectors[[row_of[uuid] for uuid in sample.ids]]
    )


def test_the_sample_depends_on_the_ids_alone(index_factory: Any, points: Any) -> None:
    indexes = [index_factory(DIM, sample_size=64) for _ in range(2)]
    points.put_into(indexes[0])
    for start in range(600, -1, -100):  # the other way round, in parts, some of them twice
        part = slice(start, start + 150)
        indexes[1].upsert(points.ids[part], points.vectors[part], points.payloads[part])
    first, second = (index.sample() for index in indexes)
    assert len(first.ids) == 64
    assert list(first.ids) == list(second.ids)
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_the_sample_follows_replaced_vectors_and_deletions(index_factory: Any, points: Any) -> None:
    index = index_factory(DIM, sample_size=64)
    points.put_into(index)
    members = list(index.sample().ids)
    index.upsert(members[:1], points.vectors[:1], [{}])
    np.testing.assert_array_equal(index.sample().vectors[0], points.vectors[0])
    index.delete(members[:10])
    left = list(index.sample().ids)  # a backend may let others move up, or wait with it
    assert left[:54] == members[10:]
    assert not set(left) & set(members[:10])
    index.delete(members[:50])  # too few are left: it is drawn anew, and only grows
    index.build()
    renewed = list(index.sample().ids)
    assert len(renewed) == 64
    assert renewed[:14] == members[50:]
    assert not set(renewed) & set(members[:50])
