"""The protocol: ranks by counting, against a hand-worked table and one sort per query."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import published as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluation.features import CaseFeatures
from evaluation.protocol import (
    UNRANKED,
    ArrayBlocks,
    Ranks,
    average_precision,
    ranks,
    recall_at,
)
from ingest.errors import ModelError, SourceError, UsageError, WeightsError

KS = [1, 5, 10, 100]


def agrees(case: CaseFeatures, distractors: NDArray[Any], **options: Any) -> Ranks:
    found = ranks(case, ArrayBlocks(distractors), **options)
    precision, recall = reference.published(case, distractors, KS)
    np.testing.assert_allclose(average_precision(found), precision, rtol=0, atol=1e-9)
    for column, k in enumerate(KS):
        np.testing.assert_allclose(recall_at(found, k), recall[:, column], rtol=0, atol=1e-9)
    return found


def along(similarities: list[float]) -> NDArray[np.float32]:
    """Features of two numbers whose similarity with (1, 0) is the one given."""
    return np.array([[s, np.sqrt(1 - s * s)] for s in similarities], dtype=np.float32)


def two_models() -> CaseFeatures:
    return CaseFeatures(
        "hand",
        ("a", "b"),
        along([0.9, 0.5, 0.75, 1.0]),
        np.array([0, 3, 4]),
        along([1.0]),
        np.array([0]),
        ("gpt",),
    )


def test_ranks_of_a_hand_worked_gallery() -> None:
    # Model a's exemplars 0.9, 0.75, 0.5 among 0.95, 0.8, 0.8, 0.6, 0.1: places 2, 5, 7. Model b's
    # exemplar, the nearest of all, is not in this query's gallery.
    found = ranks(two_models(), ArrayBlocks(along([0.1, 0.8, 0.95, 0.6, 0.8])))
    assert found.of(0).tolist() == [2, 5, 7]
    assert found.distractors == 5
    assert average_precision(found).tolist() == [pytest.approx((1 / 2 + 2 / 5 + 3 / 7) / 3)]
    assert [recall_at(found, k)[0] for k in (1, 2, 4, 5, 7, 100)] == [
        0,
        pytest.approx(1 / 3),
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
        1,
        1,
    ]


def test_a_distractor_as_similar_as_an_exemplar_stands_before_it() -> None:
    found = ranks(two_models(), ArrayBlocks(along([0.9, 0.75, 0.75, 0.5])))
    assert found.of(0).tolist() == [2, 5, 7]


def test_one_feature_for_everything_finds_nothing() -> None:
    case = reference.random_case(np.random.default_rng(0), [2, 5], 6, 8)
    same = np.tile(case.exemplars[:1], (200, 1))
    flat = replace(case, exemplars=np.tile(case.exemplars[:1], (7, 1)))
    found = agrees(flat, same)
    assert all(found.of(q)[0] == 201 for q in range(6))
    assert not recall_at(found, 100).any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [37, 16_384])
def test_agrees_with_the_published_evaluation(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    case = reference.random_case(random, [1, 3, 30, 12, 2], 40, 33, signal=0.3)
    agrees(case, reference.features(random, 300, 33), rows=rows)


@pytest.mark.parametrize("dim", [5, 512, 1280])
@pytest.mark.parametrize("rows", [61, 100])
def test_copies_of_exemplars_tie_whatever_the_shape_of_the_product(dim: int, rows: int) -> None:
    # A float32 matrix product rounds a row otherwise in another place; these would not tie in it.
    random = np.random.default_rng(dim)
    case = reference.random_case(random, [1, 4, 40], 30, dim, signal=0.4)
    distractors = reference.features(random, 180, dim)
    places = random.permutation(180)[: 2 * 45]
    distractors[places] = np.concatenate([case.exemplars, case.exemplars])
    found = agrees(case, distractors, rows=rows)
    # By hand: the first exemplar has its two copies before it, at least.
    assert all(found.of(q)[0] >= 3 for q in range(30))


@pytest.mark.parametrize("step", [1, -1])
def test_the_next_float32_is_told_apart(step: int) -> None:
    # Distractors one rounding above (below) their exemplar: nearer than float32 products can tell.
    random = np.random.default_rng(4)
    case = reference.random_case(random, [20], 10, 256)
    nudged = np.nextafter(case.exemplars, np.sign(case.synth[0]) * step * np.float32(np.inf))
    found = agrees(case, nudged)
    own = np.arange(1, 21)
    assert found.of(0).tolist() == (2 * own if step > 0 else 2 * own - 1).tolist()


@st.composite
def exact_cases(draw: st.DrawFn) -> tuple[CaseFeatures, NDArray[np.float32]]:
    """Features of few small whole numbers: full of ties, and every product is exact."""
    dim = draw(st.integers(1, 4))
    counts = draw(st.lists(st.integers(1, 14), min_size=1, max_size=4))
    queries = draw(st.integers(0, 5))
    distractors = draw(st.integers(0, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def numbers(rows: int) -> NDArray[np.float32]:
        return random.integers(-2, 3, (rows, dim)).astype(np.float32)

    case = CaseFeatures(
        "exact",
        tuple(str(i) for i in range(len(counts))),
        numbers(sum(counts)),
        np.concatenate([[0], np.cumsum(counts)]),
        numbers(queries),
        random.integers(len(counts), size=queries),
        ("gpt",) * queries,
    )
    return case, numbers(distractors)


@settings(deadline=None, max_examples=200)
@given(exact_cases(), st.integers(1, 40))
def test_agrees_where_ties_decide(
    drawn: tuple[CaseFeatures, NDArray[np.float32]], rows: int
) -> None:
    agrees(*drawn, rows=rows)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 25), min_size=1, max_size=5),
    st.integers(2, 40),
    st.integers(0, 60),
    st.integers(1, 70),
)
def test_agrees_on_random_features(
    seed: int, counts: list[int], dim: int, distractors: int, rows: int
) -> None:
    random = np.random.default_rng(seed)
    case = reference.random_case(random, counts, 7, dim, signal=0.3)
    agrees(case, reference.features(random, distractors, dim), rows=rows)


def test_more_queries_than_a_chunk_and_a_gallery_in_float16() -> None:
    random = np.random.default_rng(7)
    case = reference.random_case(random, [2, 1, 11], 300, 6, signal=0.2)
    halves = reference.features(random, 90, 6).astype(np.float16)
    agrees(case, halves, rows=50)


def test_metrics_of_what_a_search_did_not_reach() -> None:
    found = Ranks(np.array([2, UNRANKED, UNRANKED]), np.array([0, 2, 3]), 50)
    assert average_precision(found).tolist() == [0.25, 0.0]
    assert recall_at(found, 10).tolist() == [0.5, 0.0]


def test_recall_among_none_is_refused() -> None:
    found = Ranks(np.array([2]), np.array([0, 1]), 5)
    with pytest.raises(UsageError, match=r"^recall is taken among the first 1 or more, not 0$"):
        recall_at(found, 0)


def test_distractors_of_another_dim_are_refused() -> None:
    with pytest.raises(
        ModelError, match=r"^hand: features of 2 numbers, but the distractors have 3$"
    ):
        ranks(two_models(), ArrayBlocks(np.zeros((4, 3), np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_distractors_that_are_not_finite_are_refused(bad: float) -> None:
    distractors = along([0.1, 0.2, 0.3])
    distractors[2, 1] = bad
    with pytest.raises(
        WeightsError, match=r"^among distractors 2 to 3 are features that are not finite$"
    ):
        ranks(two_models(), ArrayBlocks(distractors), rows=2)


@dataclass(frozen=True)
class _Short(ArrayBlocks):
    def blocks(self, rows: int) -> Iterator[NDArray[np.float32]]:
        yield from list(super().blocks(rows))[:-1]


def test_a_gallery_that_gives_less_than_it_says_is_refused() -> None:
    with pytest.raises(SourceError, match=r"^of 3 distractors the gallery gave 2; build it again$"):
        ranks(two_models(), _Short(along([0.1, 0.2, 0.3])), rows=2)


def test_memory_does_not_grow_with_the_gallery() -> None:
    case = reference.random_case(np.random.default_rng(1), [3] * 10, 100, 16)
    peaks = []
    for count in (40_000, 160_000):
        distractors = reference.features(np.random.default_rng(2), count, 16)
        tracemalloc.start()
        ranks(case, ArrayBlocks(distractors), rows=4_096)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_progress_counts_distractors() -> None:
    seen: list[tuple[int, int]] = []
    ranks(
        two_models(),
        ArrayBlocks(along([0.1, 0.2, 0.3])),
        rows=2,
        progress=lambda *at: seen.append(at),
    )
    assert seen == [(2, 3), (3, 3)]
