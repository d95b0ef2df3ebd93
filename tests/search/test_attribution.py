"""Attribution against a slow reference over the full matrix, on every index."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_index import (
    CALIBRATORS,
    CUT,
    DIM,
    RAISED,
    SAMPLE,
    ZERO,
    BruteIndex,
    ask,
    attributor,
    check_sums,
    collection,
    fill,
    reference,
    unit,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from embed.calibrator import Calibrator
from ingest.errors import EmptyQueryError, ModelMismatchError, RunError, UsageError
from search.calibration import influence
from search.edge import EdgeIndex, EdgeSettings
from search.index import Index, Where

MakeIndex = Callable[[], Index]


@pytest.fixture(params=["brute", "edge"])
def make_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeIndex]:
    made: list[Index] = []

    def make() -> Index:
        if request.param == "brute":
            made.append(BruteIndex())
        else:
            folder = tmp_path / f"index-{len(made)}"
            made.append(EdgeIndex.create(folder, DIM, EdgeSettings(sample_size=SAMPLE)))
        return made[-1]

    yield make
    for index in made:
        index.close()


@pytest.fixture(scope="module", params=["brute", "edge"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An index that holds `collection()`, for tests that only read."""
    index: Index = BruteIndex()
    if request.param == "edge":
        folder = tmp_path_factory.mktemp("filled") / "index"
        index = EdgeIndex.create(folder, DIM, EdgeSettings(sample_size=SAMPLE))
    fill(index)
    yield index
    index.close()


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize("where", [{}, {"creator": ["Ann", ""]}, {"creator": ["Zoe"]}])
@pytest.mark.parametrize("exact", [False, True])
def test_agrees_with_the_reference(
    filled: Index, calibrator: Calibrator, where: Where, exact: bool
) -> None:
    _, vectors, payloads = collection()
    queries = ask()
    truth = influence((queries @ vectors.T).astype(np.float64), calibrator)
    answers = attributor(filled, calibrator, first_limit=8).attribute(
        queries, ["a", "b", "c"], k=20, where=where, group_by="creator", exact=exact
    )
    for name, shares, answer in zip("abc", truth, answers, strict=True):
        expected = reference(shares, payloads, where)
        assert answer.query == name
        assert answer.method == ("exact" if exact or calibrator.b >= 0 else "complete")
        assert answer.support == np.count_nonzero(shares)
        check_sums(answer)
        assert_allclose(
            [row.influence for row in answer.rows],
            [share for share, _ in expected[:20]],
            rtol=1e-4,
            atol=1e-7,
        )
        found = {frozenset(owner.key for owner in row.owners) for row in answer.rows}
        assert found == {keys for _, keys in expected[:20]}
        groups: dict[str, list[float]] = {}
        for share, payload in zip(shares, payloads, strict=True):
            if share > 0 and payload["creator"] in where.get("creator", [payload["creator"]]):
                groups.setdefault(payload["creator"], []).append(share)
        assert {group.value: group.images for group in answer.groups} == {
            value: len(members) for value, members in groups.items()
        }
        for group in answer.groups:
            assert_allclose(group.influence, math.fsum(groups[group.value]), rtol=1e-4, atol=1e-7)
            assert group.interval == (group.influence, group.influence)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_estimated_agrees_within_its_interval(
    make_index: MakeIndex, calibrator: Calibrator
) -> None:
    index = make_index()
    vectors, payloads = fill(index, 2000)
    queries = ask()
    truth = influence((queries @ vectors.T).astype(np.float64), calibrator)
    small = attributor(index, calibrator, support_limit=10, head=10, exact_below=10)
    for where in ({}, {"licence": ["cc-by"]}):
        answers = small.attribute(queries, "abc", k=5, where=where, group_by="licence")
        for shares, answer in zip(truth, answers, strict=True):
            expected = reference(shares, payloads, where)[:5]
            assert answer.method == "estimated"
            assert answer.support is None
            check_sums(answer)
            assert {frozenset(owner.key for owner in row.owners) for row in answer.rows} == {
                keys for _, keys in expected
            }
            for row, (share, _) in zip(answer.rows, expected, strict=True):
                assert row.interval[0] <= share <= row.interval[1]
                assert row.interval[0] <= row.influence <= row.interval[1]
            low, high = answer.remaining_interval
            assert low <= 1 - math.fsum(share for share, _ in expected) <= high
            assert low <= answer.remaining <= high
            assert {group.value for group in answer.groups} <= {"cc0", "cc-by"}
            assert answer.groups_remaining > 0


def test_exact_reads_a_large_collection_in_blocks(
    filled: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = ask()
    whole = attributor(filled, RAISED).attribute(queries, "abc", k=5, exact=True)
    small = attributor(filled, RAISED, head=20)
    monkeypatch.setattr("search.support._SCAN_BLOCK", 64)
    object.__setattr__(small._limits, "scan", 20)
    for one, other in zip(small.attribute(queries, "abc", k=5, exact=True), whole, strict=True):
        assert (one.method, one.support) == ("exact", 300)
        assert_allclose(one.remaining, other.remaining, rtol=1e-5)
        assert [row.owners for row in one.rows] == [row.owners for row in other.rows]


def test_a_copy_far_down_the_support_joins_its_row(make_index: MakeIndex) -> None:
    index = make_index()
    count = 1500
    angles = np.linspace(0.1, 0.8, count)
    vectors = np.zeros((count, DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    payloads = [{"key": str(i), "sha256": f"hash {i}"} for i in range(count)]
    payloads[1400]["sha256"] = "hash 2"
    index.upsert([uuid.UUID(int=i) for i in range(count)], unit(vectors), payloads)
    query = np.eye(1, DIM, dtype=np.float32)
    (answer,) = attributor(index, ZERO).attribute(query, ["q"], k=4)
    assert answer.rows[0].key == "2"
    assert [owner.key for owner in answer.rows[0].owners] == ["2", "1400"]
    assert len(answer.rows) == 4
    check_sums(answer)


def test_everything_a_copy_of_one_image(make_index: MakeIndex) -> None:
    index = make_index()
    vectors = np.tile(ask(1), (40, 1))
    payloads = [{"key": str(i), "sha256": "one", "creator": f"c{i % 3}"} for i in range(40)]
    index.upsert([uuid.UUID(int=i) for i in range(40)], vectors, payloads)
    for calibrator in CALIBRATORS:
        (answer,) = attributor(index, calibrator, first_limit=4).attribute(ask(1), ["q"], k=3)
        assert [len(row.owners) for row in answer.rows] == [40]
        assert answer.rows[0].influence == 1
        assert answer.rows[0].creators == ("c0", "c1", "c2")
        assert answer.remaining == 0


def test_k_larger_than_the_collection(make_index: MakeIndex) -> None:
    index = make_index()
    vectors, payloads = fill(index, 9)
    for calibrator in CALIBRATORS:
        (answer,) = attributor(index, calibrator).attribute(ask(1), ["q"], k=1000)
        shares = influence((ask(1) @ vectors.T).astype(np.float64), calibrator)[0]
        assert len(answer.rows) == len(reference(shares, payloads, {}))
        assert answer.remaining < 1e-9
        check_sums(answer)


def test_answers_do_not_depend_on_earlier_queries_or_on_company(filled: Index) -> None:
    one = attributor(filled, CUT, first_limit=16)
    together = one.attribute(ask(5), "abcde", group_by="creator")
    alone = [one.attribute(ask(5)[i : i + 1], "abcde"[i], group_by="creator")[0] for i in range(5)]
    assert together == alone


def test_the_record_of_an_answer(filled: Index) -> None:
    (answer,) = attributor(filled, CUT).attribute(ask(1), ["q"], k=2, where={"licence": ["cc0"]})
    assert answer.calibrator == {"tau": 0.15, "b": -0.05, "fitted": True, "fitted_on": "pairs"}
    assert (answer.model, answer.fingerprint, answer.population) == ("model", "f00d", 300)
    assert answer.where == {"licence": ("cc0",)}
    assert {"backend", "points", "dim", "quantization", "ef", "m"} <= set(answer.index)
    assert "disk_bytes" not in answer.index
    assert answer.rows[0].width == 10 + int(answer.rows[0].key)
    assert answer.to_dict()["rows"][0]["rank"] == 1


def test_wrong_calls_say_what_is_wrong(make_index: MakeIndex) -> None:
    index = make_index()
    one = attributor(index, CUT)
    query = ask(1)
    with pytest.raises(RunError, match=r"^the collection holds no training images: ingest some"):
        one.attribute(query, ["q"])
    fill(index, 10)
    with pytest.raises(EmptyQueryError, match=r"^k must be at least 1, not 0$"):
        one.attribute(query, ["q"], k=0)
    with pytest.raises(ModelMismatchError, match=r"^features have 7 numbers but .* have 8: query"):
        one.attribute(query[:, :7], ["q"])
    with pytest.raises(UsageError, match=r"^features of 2 images are needed, not an array of 1 x"):
        one.attribute(query, ["q", "r"])
    with pytest.raises(UsageError, match=r"^features of 'q' are not L2-normalised: norm nan$"):
        one.attribute(query * np.float32(np.nan), ["q"])
    with pytest.raises(UsageError, match=r"^features of 'q' are not L2-normalised: norm 2$"):
        one.attribute(2 * query, ["q"])
    with pytest.raises(UsageError, match=r"^cannot filter by 'width': the fields to filter by are"):
        one.attribute(query, ["q"], where={"width": ["1"]})
    with pytest.raises(UsageError, match=r"^values to filter 'creator' by must be a list, not 'A'"):
        one.attribute(query, ["q"], where={"creator": "A"})
    assert one.attribute(query[:0], []) == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    count=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    tau=st.floats(0.02, 1),
    b=st.floats(-0.5, 0.5),
    k=st.integers(1, 50),
    head=st.integers(1, 50),
    exact_below=st.integers(0, 50),
)
def test_any_answer_is_a_distribution_whatever_the_order_of_ingestion(
    count: int, seed: int, tau: float, b: float, k: int, head: int, exact_below: int
) -> None:
    random = np.random.default_rng(seed)
    ids, vectors, payloads = collection(count)
    index, other = BruteIndex(sample_size=8), BruteIndex(sample_size=8)
    index.upsert(ids, vectors, payloads)
    for i in random.permutation(count):
        other.upsert([ids[i]], vectors[i : i + 1], [payloads[i]])
    query = unit(random.normal(size=(1, DIM)))
    options = {"head": head, "exact_below": exact_below, "first_limit": 3, "support_limit": 6}
    answers = [
        attributor(one, Calibrator(tau, b), **options).attribute(
            query, ["q"], k=k, group_by="creator"
        )[0]
        for one in (index, other)
    ]
    assert answers[0] == answers[1]
    check_sums(answers[0])
    low, high = answers[0].remaining_interval
    assert -1e-12 <= low <= answers[0].remaining + 1e-9
    assert answers[0].remaining - 1e-9 <= high <= 1
