"""Rows up to a mass of influence."""

from __future__ import annotations

import uuid
from math import fsum, nan
from typing import Any

import numpy as np
import pytest
from brute_index import (
    CALIBRATORS,
    CUT,
    DIM,
    RAISED,
    BruteIndex,
    ask,
    attributor,
    check_sums,
    fill,
    unit,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from embed.calibrator import Calibrator
from ingest.errors import UsageError
from search.fold import Fold, until


class Reading(BruteIndex):
    """Counts the payloads that are read whole, and in part."""

    def __init__(self) -> None:
        super().__init__()
        self.whole: list[int] = []
        self.part: list[int] = []

    def fetch(self, ids: Any, *, fields: Any = None) -> Any:
        (self.whole if fields is None else self.part).append(len(ids))
        return super().fetch(ids, fields=fields)


def test_the_rows_end_where_the_mass_is_reached() -> None:
    """Weights 1 + b, e^-1 + b, ... by hand: tau 0.1, similarities 1, 0.9, 0.8, 0.7, b 0."""
    index = BruteIndex(dim=2)
    cosines = np.array([1, 0.9, 0.8, 0.7])
    vectors = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
    payloads = [{"key": key, "sha256": key} for key in "abcd"]
    index.upsert([uuid.UUID(int=i + 1) for i in range(4)], unit(vectors), payloads)
    one = attributor(index, Calibrator(0.1, 0.0))
    query = np.array([[1, 0]], np.float32)
    # shares 0.644, 0.237, 0.087, 0.032: their sums 0.644, 0.881, 0.968, 1
    for mass, keys in ((0.6, "a"), (0.7, "ab"), (0.88, "ab"), (0.89, "abc"), (0.97, "abcd")):
        (answer,) = one.attribute(query, "q", mass=mass)
        assert "".join(row.key for row in answer.rows) == keys, mass
        assert answer.mass == mass
        assert answer.remaining == pytest.approx(1 - fsum(row.influence for row in answer.rows))
    (answer,) = one.attribute(query, "q", k=2, mass=0.97)
    assert "".join(row.key for row in answer.rows) == "ab"  # k came first
    assert answer.remaining == pytest.approx(0.119, abs=1e-3)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize("where", [{}, {"creator": ["Ann", ""]}])
@pytest.mark.parametrize("estimated", [False, True])
def test_rows_stay_what_they_are(calibrator: Calibrator, where: Any, estimated: bool) -> None:
    index = BruteIndex()
    fill(index, 1500)
    few = {"support_limit": 10, "head": 10, "exact_below": 10} if estimated else {}
    for k in (3, 40, 1000):
        one = attributor(index, calibrator, **few)
        whole = one.attribute(ask(), "abc", k=k, where=where, group_by="creator")
        for mass in (0.05, 0.5, 0.9, 1.0):
            cut = one.attribute(ask(), "abc", k=k, mass=mass, where=where, group_by="creator")
            for answer, expected in zip(cut, whole, strict=True):
                shown = len(answer.rows)
                assert answer.rows == expected.rows[:shown]
                assert (answer.groups, answer.method) == (expected.groups, expected.method)
                if shown < len(expected.rows):
                    assert fsum(row.influence for row in answer.rows) >= mass
                assert fsum(row.influence for row in answer.rows[:-1]) < mass
                check_sums(answer)


def test_copies_far_out_move_up_as_they_do_without_mass() -> None:
    index = BruteIndex()
    count = 1500
    vectors = np.zeros((count, DIM), np.float32)
    angles = np.linspace(0.1, 0.8, count)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    payloads = [{"key": str(i), "sha256": f"hash {i}"} for i in range(count)]
    for far in range(1300, 1500, 10):
        payloads[far]["sha256"] = "hash 40"
    index.upsert([uuid.UUID(int=i) for i in range(count)], vectors, payloads)
    query = np.eye(1, DIM, dtype=np.float32)
    one = attributor(index, Calibrator(10.0, -0.01))
    (whole,) = one.attribute(query, "q", k=60)
    (cut,) = one.attribute(query, "q", k=60, mass=0.02)
    assert whole.rows[0].key == "40"  # 21 records
    assert 1 < len(cut.rows) < 20
    assert cut.rows == whole.rows[: len(cut.rows)]


def test_no_more_payloads_are_read_than_needed() -> None:
    index = Reading()
    fill(index, 8000)
    one = attributor(index, CUT)
    (answer,) = one.attribute(ask(1), "q", k=1000, mass=0.3)
    support = answer.support or 0
    assert 600 < support < 1000
    records = sum(len(row.owners) for row in answer.rows)
    assert index.part == [support]  # hashes of all, to fold; whole payloads of the rows alone
    assert index.whole == [records]
    index.part.clear()
    index.whole.clear()
    sharp = attributor(index, Calibrator(0.05, -0.05))
    (answer,) = sharp.attribute(ask(1), "q", k=1000, mass=0.99)
    assert (index.part, index.whole) == ([], [answer.support])  # a small one in one round trip


@pytest.mark.parametrize("mass", [0, -0.1, 1.001, nan, 99])
def test_a_mass_that_is_no_share_is_refused(mass: float) -> None:
    index = BruteIndex()
    fill(index, 10)
    with pytest.raises(UsageError, match=rf"^mass must be above 0 and at most 1, not {mass:g}$"):
        attributor(index, RAISED).attribute(ask(1), "q", mass=mass)


@settings(max_examples=200, deadline=None)
@given(
    weights=st.lists(st.floats(1e-300, 1e3), min_size=1, max_size=60),
    mass=st.floats(1e-9, 1),
    rest=st.floats(0, 1),
)
def test_until_is_the_shortest_head_that_reaches_the_mass(
    weights: list[float], mass: float, rest: float
) -> None:
    weights = sorted(weights, reverse=True)
    folds = [Fold((place,), weight) for place, weight in enumerate(weights)]
    total = fsum(weights) * (1 + rest)
    head = until(folds, total, mass)
    assert head == folds[: len(head)]
    shares = [weight / total for weight in weights]
    assert fsum(shares[: len(head) - 1]) < mass or len(head) == 1
    assert len(head) == len(folds) or fsum(shares[: len(head)]) >= mass


def test_until_of_nothing() -> None:
    assert until([], 1.0, 0.5) == []


def test_the_last_digit_decides_nothing() -> None:
    """Ten shares of a tenth: a running sum is 0.9999999999999999."""
    folds = [Fold((place,), 0.1) for place in range(10)]
    assert len(until(folds, 1.0, 1.0)) == 10
    assert len(until(folds, 1.0, 0.3)) == 3
    assert len(until(folds, 1.0, 0.8)) == 8
