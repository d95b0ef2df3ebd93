"""Points as messages: bounded requests, the numbers' own bytes, places in the sample's order."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from search.checks import pack_ids
from search.sample import keys_from_bytes, places
from search.server_requests import PLACE, grpc_points, place_of, request_parts, rest_points

MEGABYTE = 1024 * 1024


@given(
    st.lists(st.integers(2, 12 * MEGABYTE), max_size=60),
    st.integers(1, 4096),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 50)),
)
def test_requests_are_bounded_and_leave_nothing_out(
    sizes: list[int], dim: int, binary: bool, most: int | None
) -> None:
    parts = list(request_parts(sizes, dim, binary, most))
    assert [at for part in parts for at in range(part.start, part.stop)] == list(range(len(sizes)))
    for part in parts:
        count = part.stop - part.start
        assert 1 <= count <= (most or 2000)
        size = sum(sizes[part]) + count * dim * (4 if binary else 22)
        assert size <= 8 * MEGABYTE or count == 1


def test_few_small_points_go_in_one_request() -> None:
    assert list(request_parts([300] * 1000, 512, True, None)) == [slice(0, 1000)]
    assert list(request_parts([300] * 5, 512, True, 2)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(request_parts([], 512, True, None)) == []


@pytest.mark.parametrize("dim", [1, 31, 32, 512, 5000])
def test_messages_are_those_of_the_client(dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows = rng.normal(size=(3, dim)).astype(np.float32)
    ids = [UUID(bytes=rng.bytes(16)) for _ in range(3)]
    payloads = [{"key": "ä", "width": 7, "none": None}, {}, {"tags": ["a", {"b": 1.5}]}]
    at = place_of(pack_ids(ids))
    for uuid, row, payload, place, message in zip(
        ids, rows, payloads, at.tolist(), grpc_points(ids, rows, payloads, at), strict=True
    ):
        struct = models.PointStruct(
            id=str(uuid), vector=row.tolist(), payload={**payload, PLACE: place}
        )
        expected = RestToGrpc.convert_point_struct(struct)
        np.testing.assert_array_equal(np.array(message.vectors.vector.dense.data), row)
        assert message.id == expected.id
        assert dict(message.payload) == dict(expected.payload)
    batch = rest_points(ids, rows, payloads, at)
    assert batch.ids == [str(uuid) for uuid in ids]
    np.testing.assert_array_equal(np.array(batch.vectors, np.float32), rows)
    assert all(PLACE not in payload for payload in payloads)  # the caller's own are left alone


@given(st.lists(st.uuids(), min_size=1, max_size=50, unique=True))
def test_places_are_whole_numbers_in_the_order_of_the_sample(ids: list[UUID]) -> None:
    packed = pack_ids(ids)
    full, short = places(keys_from_bytes(packed)), place_of(packed)
    assert (short >= 0).all()
    assert (np.sort(full >> np.uint64(1)).astype(np.int64) == short[np.argsort(full)]).all()
    assert int(short[0]) == int(full[0]) // 2
