"""Ids laid end to end behave as the list of them does."""

from __future__ import annotations

import pickle
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.checks import pack_ids
from search.packed_ids import PackedIds, id_bytes

uuids = st.lists(st.uuids(), max_size=20)
places = st.one_of(st.none(), st.integers(-25, 25))


@given(ids=uuids, start=places, stop=places, step=places.filter(lambda step: step != 0))
def test_they_are_a_sequence_of_uuids(
    ids: list[UUID], start: int | None, stop: int | None, step: int | None
) -> None:
    packed = PackedIds(b"".join(one.bytes for one in ids))
    assert len(packed) == len(ids)
    assert list(packed) == ids
    assert packed == ids
    assert ids == packed
    assert packed == PackedIds(packed.packed)
    assert list(packed[start:stop:step]) == ids[start:stop:step]
    assert pack_ids(packed[start:stop:step]) == pack_ids(ids[start:stop:step])
    assert id_bytes(packed) == id_bytes(ids) == [one.bytes for one in ids]
    assert pickle.loads(pickle.dumps(packed)) == packed
    for place in range(-len(ids), len(ids)):
        assert packed[place] == ids[place]
        assert ids[place] in packed


def test_others_are_not_equal() -> None:
    one, other = UUID(int=1), UUID(int=0x100)  # bytes that end in zeros count, too
    packed = PackedIds(one.bytes + other.bytes)
    assert packed != [one]
    assert packed != [other, one]
    assert packed != "ab"
    assert UUID(int=2) not in packed
    with pytest.raises(IndexError):
        packed[2]
    with pytest.raises(TypeError):
        hash(packed)
