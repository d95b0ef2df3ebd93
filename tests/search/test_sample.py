"""The bottom-n sketch: what it keeps depends on the set of ids alone, and is uniform over it."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.sample import Keys, Sketch, keys_from_bytes, keys_to_bytes, places

# The same examples in every run, and no deadline on a busy machine.
steady = settings(deadline=None, max_examples=60, derandomize=True)

IDS = st.lists(st.integers(0, 2**128 - 1), unique=True, max_size=120)
SIZES = st.integers(1, 40)


def keys_of(ids: list[int]) -> Keys:
    return keys_from_bytes(b"".join(UUID(int=i).bytes for i in ids))


def ids_of(sketch: Sketch) -> list[int]:
    content = keys_to_bytes(sketch.keys)
    return [int.from_bytes(content[at : at + 16], "big") for at in range(0, len(content), 16)]


def reference(ids: list[int], size: int) -> list[int]:
    """The slow one: the ids of the lowest places."""
    place = dict(zip(ids, places(keys_of(ids)).tolist(), strict=True))
    return sorted(ids, key=lambda i: place[i])[:size]


def state(sketch: Sketch) -> tuple[list[int], int]:
    return ids_of(sketch), sketch.bound


@steady
@given(IDS)
def test_ids_survive_the_halves(ids: list[int]) -> None:
    content = b"".join(UUID(int=i).bytes for i in ids)
    assert keys_of(ids).shape == (len(ids), 2)
    assert keys_to_bytes(keys_from_bytes(content)) == content


def test_places_are_pinned() -> None:
    # Written down from the first version: another mix would change every sample on disk.
    got = places(keys_of([0, 1, 2**64, 2**127 + 12345]))
    assert got.tolist() == PINNED


PINNED = [
    5197578548964807871,
    15916886550466581944,
    258863698125685209,
    12145191862252436387,
]


@steady
@given(IDS, SIZES)
def test_members_are_the_ids_of_the_lowest_places(ids: list[int], size: int) -> None:
    sketch = Sketch(size)
    sketch.add(keys_of(ids))
    assert ids_of(sketch) == reference(ids, size)


@steady
@given(IDS, SIZES, st.randoms(use_true_random=False), st.integers(1, 30))
def test_order_parts_and_repetition_do_not_matter(
    ids: list[int], size: int, random: object, part: int
) -> None:
    whole, parts = Sketch(size), Sketch(size)
    whole.add(keys_of(ids))
    shuffled = ids + ids[: len(ids) // 2]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for start in range(0, len(shuffled), part):
        parts.add(keys_of(shuffled[start : start + part]))
    assert state(parts) == state(whole)


@steady
@given(IDS, SIZES, st.integers(0, 120))
def test_merging_is_the_sketch_of_the_union(ids: list[int], size: int, cut: int) -> None:
    left, right, both = Sketch(size), Sketch(size), Sketch(size)
    left.add(keys_of(ids[:cut]))
    right.add(keys_of(ids[max(0, cut - 10) :]))  # they overlap
    both.add(keys_of(ids))
    left.merge(right)
    assert state(left) == state(both)


@steady
@given(IDS, IDS, SIZES, st.integers(0, 120))
def test_after_deletions_it_stays_complete_below_the_bound(
    ids: list[int], later: list[int], size: int, deleted: int
) -> None:
    """No later id may take a deleted one's room: older ids of lower place were passed over."""
    sketch = Sketch(size)
    sketch.add(keys_of(ids))
    sketch.remove(keys_of(ids[:deleted]))
    sketch.add(keys_of(later))
    present = sorted(set(ids[deleted:]) | set(later))
    lowest = reference(present, len(present))
    assert ids_of(sketch) == lowest[: len(sketch)]
    assert len(sketch) <= size
    if sketch.bound < 2**64 and len(sketch) < len(lowest):
        assert places(keys_of(lowest))[len(sketch)] >= sketch.bound


def test_change_is_told() -> None:
    sketch = Sketch(2)
    low, middle, high = reference([1, 2, 3], 3)
    assert sketch.add(keys_of([low, high]))
    assert not sketch.add(keys_of([low]))
    assert sketch.add(keys_of([middle]))
    assert not sketch.add(keys_of([high]))
    assert not sketch.remove(keys_of([high, 77]))
    assert sketch.remove(keys_of([low]))
    assert not sketch.add(keys_of([]))
    assert ids_of(sketch) == [middle]


def test_thin() -> None:
    sketch = Sketch(10)
    sketch.add(keys_of(list(range(100))))
    assert not sketch.is_thin(100)
    sketch.remove(keys_of(ids_of(sketch)[:6]))
    assert sketch.is_thin(94)
    assert not sketch.is_thin(8)
    assert not Sketch(10).is_thin(0)


@pytest.mark.parametrize("make", ["counting", "random"])
def test_uniform(make: str) -> None:
    """Each id is as likely a member as any other, for ids that count up as for random ones."""
    rng = np.random.default_rng(20)
    print("seed 20")
    population, size, rounds = 50, 10, 1000
    taken = np.zeros(population)
    for turn in range(rounds):
        if make == "counting":
            ids = [turn * population + i for i in range(population)]
        else:
            ids = [int.from_bytes(rng.bytes(16), "big") for _ in range(population)]
        sketch = Sketch(size)
        sketch.add(keys_of(ids))
        taken += np.isin(np.arange(population), [ids.index(i) for i in ids_of(sketch)])
    expected = rounds * size / population
    # Sampling without replacement: the variances of the counts are smaller by 1 - size/population.
    chi2 = float((((taken - expected) ** 2) / (expected * (1 - size / population))).sum())
    # 49 degrees of freedom: 85.4 is the 99.9 % point, 23.0 the 0.05 % point.
    assert 23.0 < chi2 < 85.4


def test_places_are_uniform() -> None:
    at = places(keys_of(list(range(100_000))))
    counts = np.bincount((at >> np.uint64(58)).astype(np.int64), minlength=64)
    chi2 = float(((counts - 100_000 / 64) ** 2 / (100_000 / 64)).sum())
    assert 34.0 < chi2 < 104.0  # 63 degrees of freedom, 0.1 % at either end
    low = np.bincount((at & np.uint64(63)).astype(np.int64), minlength=64)
    chi2 = float(((low - 100_000 / 64) ** 2 / (100_000 / 64)).sum())
    assert 34.0 < chi2 < 104.0


def test_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Sketch(0)
    with pytest.raises(ValueError, match="do not merge"):
        Sketch(1).merge(Sketch(2))
