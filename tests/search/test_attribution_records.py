"""Answers whose rows are arrays say what answers from payloads say, to the last bit."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from brute_index import CALIBRATORS, CUT, BruteIndex, ask, collection, fill, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from embed.calibrator import Calibrator
from search.answer import Attribution
from search.attribution import Attributor
from search.calibration import Normaliser
from search.fold import PayloadReader, fold_support, until
from search.fold_arrays import fold_arrays
from search.index import Payload
from search.records import Records
from search.rows import RecordRows
from search.support import Support


def both(
    index: Any, calibrator: Calibrator, features: Any, *, kept: int = 10_000, **asked: Any
) -> tuple[list[Attribution], list[Attribution]]:
    """The answers from payloads, and those with records that are kept."""
    limits = {name: asked.pop(name) for name in ("head", "exact_below") if name in asked}
    names = [f"query {number}" for number in range(len(features))]
    found = [
        Attributor(index, "brute", "f" * 64, calibrator, records=records, **limits).attribute(
            features, names, **asked
        )
        for records in (None, Records(index, kept))
    ]
    return found[0], found[1]


def same(plain: Sequence[Attribution], kept: Sequence[Attribution]) -> None:
    for one, other in zip(plain, kept, strict=True):
        assert isinstance(one.rows, tuple)
        assert isinstance(other.rows, RecordRows)
        assert one.to_dict() == other.to_dict()
        assert [row.payload for row in one.rows] == [row.payload for row in other.rows]
        assert other.rows == one.rows
        assert other == one


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"k": 7},
        {"k": 400, "mass": 0.9},
        {"mass": 0.3},
        {"without": {"creator": ["Ann"]}},
        {"k": 3, "mass": 0.999, "exact": True},
        {"head": 20, "exact_below": 10},
        {"head": 20, "exact_below": 10, "mass": 0.8, "without": {"creator": ["Ann", "Bob"]}},
    ],
)
def test_answers_are_the_same(calibrator: Calibrator, asked: dict[str, Any]) -> None:
    index = BruteIndex()
    fill(index, 700)
    plain, kept = both(index, calibrator, ask(9), **asked)
    assert any(len(row.owners) > 1 for answer in plain for row in answer.rows)
    same(plain, kept)


def test_what_is_known_serves_the_next_answers() -> None:
    """Records that the first batch did not have come with the second, numbers stay."""
    index = BruteIndex()
    fill(index, 300)
    one = Attributor(index, "brute", "f" * 64, CUT, records=Records(index))
    first, queries = one.attribute(ask(2), ["a", "b"], k=5), ask(30)
    again = one.attribute(queries, ["q"] * 30)
    same(Attributor(index, "brute", "f" * 64, CUT).attribute(queries, ["q"] * 30), again)
    same(Attributor(index, "brute", "f" * 64, CUT).attribute(ask(2), ["a", "b"], k=5), first)


def test_payloads_are_read_once() -> None:
    index = BruteIndex()
    fill(index, 300)
    asked: list[uuid.UUID] = []
    fetch = index.fetch

    def counting(ids: Any, **fields: Any) -> Any:
        asked.extend(ids)
        return fetch(ids, **fields)

    index.fetch = counting  # type: ignore[method-assign]
    one = Attributor(index, "brute", "f" * 64, CALIBRATORS[1], records=Records(index))
    for _ in range(3):
        one.attribute(ask(4), ["q"] * 4, mass=0.9)
    assert sorted(asked) == sorted(index.points)


@pytest.mark.parametrize("asked", [{"where": {"creator": ["Ann"]}}, {"group_by": "licence"}])
def test_filters_and_groups_read_payloads(asked: dict[str, Any]) -> None:
    index = BruteIndex()
    fill(index, 300)
    plain, kept = both(index, CUT, ask(5), **asked)
    assert all(isinstance(answer.rows, tuple) for answer in kept)
    assert plain == kept


def test_a_larger_collection_than_is_kept_is_read() -> None:
    index = BruteIndex()
    fill(index, 300)
    plain, kept = both(index, CUT, ask(5), kept=299)
    assert all(isinstance(answer.rows, tuple) for answer in kept)
    assert plain == kept
    same(*both(index, CUT, ask(5), kept=300))


def test_a_record_that_is_gone_has_no_payload() -> None:
    """On a server others take images down meanwhile."""
    index = BruteIndex()
    ids, vectors, payloads = collection(50)
    index.upsert(ids, vectors, payloads)
    fetch = index.fetch
    gone = {ids[3], ids[4]}

    def without(wanted: Any, **fields: Any) -> Any:
        return [
            None if one in gone else payload
            for one, payload in zip(wanted, fetch(wanted, **fields), strict=True)
        ]

    index.fetch = without  # type: ignore[method-assign]
    plain, kept = both(index, CALIBRATORS[1], ask(3))
    assert all(isinstance(answer.rows, tuple) for answer in kept)
    assert plain == kept
    assert any(row.key == str(ids[3]) for row in kept[0].rows)


def test_rows_are_a_sequence() -> None:
    index = BruteIndex()
    fill(index, 300)
    (plain,), (kept,) = both(index, CALIBRATORS[1], ask(1))
    rows, expected = kept.rows, plain.rows
    assert len(rows) == len(expected) == 50
    assert rows[0] == expected[0]
    assert rows[-1] == expected[-1]
    assert rows[3:9] == expected[3:9]
    assert rows[::-7] == expected[::-7]
    assert list(rows) == list(expected)
    assert expected[4] in rows
    assert rows != expected[:-1]
    with pytest.raises(IndexError):
        rows[50]
    assert repr(kept) == repr(plain)


# -- folding alone -----------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    hashes=st.lists(st.sampled_from(["", *"abcdef", *(f"h{i}" for i in range(30))]), min_size=1),
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 40),
    window=st.integers(1, 40),
    mass=st.one_of(st.none(), st.floats(0.01, 1)),
)
def test_arrays_fold_as_lists_do(
    hashes: list[str], seed: int, k: int, window: int, mass: float | None
) -> None:
    """Small windows: copies further out are found, and change the order."""
    random = np.random.default_rng(seed)
    values = random.choice([0.05, 0.1, 0.3, 1 / 3, 0.7], len(hashes))  # ties are likely
    if seed % 2:
        values = random.random(len(hashes))
    weights = np.sort(values)[::-1]
    ids = [uuid.UUID(int=place + 1) for place in range(len(hashes))]
    index = BruteIndex(2)
    payloads: list[Payload] = [{"sha256": text} for text in hashes]
    index.upsert(ids, unit(random.normal(size=(len(hashes), 2))), payloads)
    total = Normaliser.known(float(weights.sum()))
    support = Support(ids, weights.astype(np.float32), weights, 1.0, total, "exact", len(hashes))
    reader = PayloadReader(index, support)  # type: ignore[arg-type]
    folds = fold_support(index, support, reader, k, fields=["sha256"], window=window)  # type: ignore[arg-type]
    if mass is not None:
        folds = until(folds, total.value, mass)
    numbers = {text: len(hashes) + number for number, text in enumerate(dict.fromkeys(hashes))}
    pictures = [numbers[text] if text else place for place, text in enumerate(hashes)]
    found = fold_arrays(weights, np.array(pictures), k, window=window, total=total.value, mass=mass)
    starts = found.starts.tolist()
    places = [tuple(found.places[start:stop].tolist()) for start, stop in pairwise(starts)]
    assert places == [fold.places for fold in folds]
    assert found.weights.tolist() == [fold.weight for fold in folds]
