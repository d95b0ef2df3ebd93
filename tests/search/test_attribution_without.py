"""Answers as if training images were not there, against collections that do not hold them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from brute_index import (
    CALIBRATORS,
    CUT,
    DIM,
    RAISED,
    SAMPLE,
    BruteIndex,
    ask,
    attributor,
    check_sums,
    collection,
    fill,
    reference,
)
from numpy.testing import assert_allclose

from embed.calibrator import Calibrator
from ingest.errors import NothingLeftError, UsageError
from search.answer import Attribution
from search.calibration import influence
from search.edge import EdgeIndex, EdgeSettings
from search.index import Index, Payload, Where
from search.others import Others

LEFT_OUT: list[Where] = [
    {"creator": ["Ann"]},
    {"creator": ["Ann", "Bob"], "licence": ["cc0"]},
    {"key": ["000", "044"]},  # one of two equal images: the other stays
]
Fill = Callable[[int, Where], Index]


@pytest.fixture(scope="module", params=["brute", "edge"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fill]:
    """An index of `collection(count)`, to be read; what matches was put in and really deleted."""
    made: dict[str, Index] = {}

    def make(count: int, deleted: Where) -> Index:
        name = f"{count} {deleted}"
        if name not in made:
            folder = tmp_path_factory.mktemp("filled") / "index"
            index: Index = (
                BruteIndex()
                if request.param == "brute"
                else EdgeIndex.create(folder, DIM, EdgeSettings(sample_size=SAMPLE))
            )
            made[name] = index
            fill(index, count)
            if deleted:
                index.delete([found for page in list(index.scroll(deleted)) for found in page])
                index.build()
        return made[name]

    yield make
    for index in made.values():
        index.close()


def fits(payload: Payload, where: Where) -> bool:
    return all(payload[field] in values for field, values in where.items())


def same(one: Attribution, other: Attribution, without: Where) -> None:
    """Equal, but for what says how it was asked, and the last digits."""
    assert one.without == {field: tuple(values) for field, values in without.items()}
    assert other.without == {}
    assert (one.method, one.support, one.population) == (
        (other.method, other.support, other.population)
    )
    for found, expected in zip(one.rows, other.rows, strict=True):
        assert found.owners == expected.owners
        assert_allclose(found.influence, expected.influence, rtol=1e-5)
        assert_allclose(found.interval, expected.interval, rtol=1e-4)
    assert_allclose(one.remaining, other.remaining, atol=1e-6)
    assert [replace(group, influence=0, interval=(0, 0)) for group in one.groups] == [
        replace(group, influence=0, interval=(0, 0)) for group in other.groups
    ]
    assert_allclose(
        [group.influence for group in one.groups],
        [group.influence for group in other.groups],
        rtol=1e-5,
    )
    check_sums(one)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize("without", LEFT_OUT)
def test_as_from_a_collection_without_them(
    filled: Fill, calibrator: Calibrator, without: Where
) -> None:
    whole, rest = filled(300, {}), filled(300, without)
    _, vectors, payloads = collection(300)
    kept = [row for row, payload in enumerate(payloads) if not fits(payload, without)]
    truth = influence((ask() @ vectors[kept].T).astype(np.float64), calibrator)
    for options in (
        {},
        {"exact": True},
        {"where": {"licence": ["cc0"]}},
        {"where": {"creator": ["Ann"]}},
    ):
        asked: dict[str, Any] = {"k": 20, "group_by": "creator", **options}
        one = attributor(whole, calibrator, first_limit=8)
        answers = one.attribute(ask(), "abc", without=without, **asked)
        expected = attributor(rest, calibrator, first_limit=8).attribute(ask(), "abc", **asked)
        for answer, other, shares in zip(answers, expected, truth, strict=True):
            same(answer, other, without)
            assert answer.population == len(kept) < 300
            rows = reference(shares, [payloads[row] for row in kept], asked.get("where", {}))[:20]
            assert_allclose([row.influence for row in answer.rows], [r for r, _ in rows], rtol=1e-4)
            keys = {frozenset(owner.key for owner in row.owners) for row in answer.rows}
            assert keys == {owners for _, owners in rows}
        # Nothing was changed, and the next answer does not remember it.
        assert one.attribute(ask(), "abc", k=9) == attributor(
            whole, calibrator, first_limit=8
        ).attribute(ask(), "abc", k=9)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_exact_in_blocks(
    filled: Fill, calibrator: Calibrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.support._SCAN_BLOCK", 64)
    without = {"creator": ["Ann"]}
    answers = []
    for index, options in ((filled(300, {}), {"without": without}), (filled(300, without), {})):
        one = attributor(index, calibrator, head=20)
        object.__setattr__(one._limits, "scan", 20)
        answers.append(one.attribute(ask(1), "a", k=5, exact=True, **options)[0])
    same(*answers, without)


def test_only_the_record_that_matches_goes(filled: Fill) -> None:
    """Images 43 and 44 are equal; each is a record of its own."""
    _, vectors, _ = collection(300)
    one = attributor(filled(300, {}), CUT)
    (both,) = one.attribute(vectors[43:44], "q", k=1)
    (left,) = one.attribute(vectors[43:44], "q", k=1, without={"key": ["044"]})
    assert {owner.key for owner in both.rows[0].owners} == {"043", "044"}
    assert [owner.key for owner in left.rows[0].owners] == ["043"]


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_estimates_without_hold_the_truth_and_agree_with_a_real_deletion(
    filled: Fill, calibrator: Calibrator
) -> None:
    without = {"creator": ["Ann"]}
    whole, rest = filled(2000, {}), filled(2000, without)
    _, vectors, payloads = collection(2000)
    kept = [row for row, payload in enumerate(payloads) if not fits(payload, without)]
    truth = influence((ask() @ vectors[kept].T).astype(np.float64), calibrator)
    options = {"support_limit": 10, "head": 10, "exact_below": 10}
    for where in ({}, {"licence": ["cc-by"]}):
        answers = attributor(whole, calibrator, **options).attribute(
            ask(), "abc", k=5, where=where, without=without
        )
        others = attributor(rest, calibrator, **options).attribute(ask(), "abc", k=5, where=where)
        for answer, other, shares in zip(answers, others, truth, strict=True):
            rows = reference(shares, [payloads[row] for row in kept], where)[:5]
            assert answer.method == other.method == "estimated"
            assert answer.population == other.population == len(kept)
            assert [row.owners for row in answer.rows] == [row.owners for row in other.rows]
            for row, (share, _) in zip(answer.rows, rows, strict=True):
                assert row.interval[0] <= share <= row.interval[1]
            low, high = answer.remaining_interval
            assert low <= 1 - sum(share for share, _ in rows) <= high
            # Another sample, the members that moved up among them: the intervals meet.
            assert other.remaining_interval[0] <= high
            assert low <= other.remaining_interval[1]


def test_the_sample_is_the_members_that_stay_and_its_payloads_are_read_once() -> None:
    index = BruteIndex()
    fill(index, 2000)
    without = {"creator": ["Ann"]}
    ids = index.sample().ids
    sample = Others(index, without).sample()
    stay = [i for i in ids if index.points[i][1]["creator"] != "Ann"]
    assert 0 < len(stay) < len(ids)
    assert list(sample.ids) == stay
    np.testing.assert_array_equal(sample.vectors, index.vectors(stay))

    asked: list[int] = []
    fetch = index.fetch

    def counted(wanted: Any, *, fields: Any = None) -> Any:
        asked.append(len(wanted))
        return fetch(wanted, fields=fields)

    index.fetch = counted  # type: ignore[method-assign]
    one = attributor(index, RAISED, head=10, exact_below=10)
    for _ in range(3):
        one.attribute(ask(1), "q", k=2, without=without)
    assert asked.count(len(ids)) == 1
    for name in ("Bob", "Cy", "", "nobody", "Ann"):  # more than are kept
        one.attribute(ask(1), "q", k=2, without={"creator": [name]})
    assert len(one._finders) == 4


def test_takedowns_are_seen() -> None:
    index = BruteIndex()
    fill(index)
    one = attributor(index, RAISED, head=10, exact_below=10)
    without = {"creator": ["Ann"]}
    (before,) = one.attribute(ask(1), "q", k=2, without=without)
    index.delete([uuid.UUID(before.rows[0].owners[0].id)])
    (after,) = one.attribute(ask(1), "q", k=2, without=without)
    assert after.population == before.population - 1
    assert before.rows[0].owners[0] not in after.rows[0].owners


def test_wrong_calls_say_what_is_wrong(filled: Fill) -> None:
    one = attributor(filled(10, {}), CUT)
    everyone = {"creator": ["", "Ann", "Bob", "Cy"], "licence": ["cc0", "cc-by"]}
    with pytest.raises(NothingLeftError) as error:
        one.attribute(ask(1), "q", without=everyone)
    assert str(error.value) == (
        "all 10 training images match creator= or creator=Ann or creator=Bob or creator=Cy, and "
        "licence=cc0 or licence=cc-by: without them none is left to attribute to"
    )
    with pytest.raises(UsageError, match=r"^cannot filter by 'width': the fields to filter by are"):
        one.attribute(ask(1), "q", without={"width": ["1"]})
    with pytest.raises(UsageError, match=r"^values to filter 'creator' by must be a list, not 'A'"):
        one.attribute(ask(1), "q", without={"creator": "A"})
