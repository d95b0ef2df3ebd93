"""The protocol through a real index, beside the exact one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import published as reference
import pytest
from numpy.typing import NDArray

from evaluation.features import CaseFeatures
from evaluation.protocol import UNRANKED, ArrayBlocks, average_precision, ranks
from evaluation.through_index import build_index, through_index
from ingest.errors import UsageError
from search.edge import EdgeIndex, EdgeSettings

DIM = 24


def made_up() -> tuple[CaseFeatures, NDArray[np.float32]]:
    """5 models, 60 queries, 3,000 distractors among which are copies of the exemplars."""
    random = np.random.default_rng(0)
    case = reference.random_case(random, [1, 2, 5, 9, 3], 60, DIM, signal=0.5)
    distractors = reference.features(random, 3_000, DIM)
    distractors[100:120] = case.exemplars
    return case, distractors


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeIndex]:
    folder = tmp_path_factory.mktemp("through") / "index"
    with build_index(ArrayBlocks(made_up()[1]), folder) as built:
        yield built


def test_a_search_that_returns_everything_is_the_protocol(index: EdgeIndex) -> None:
    case, distractors = made_up()
    exact = ranks(case, ArrayBlocks(distractors))
    found = through_index(case, index, exact, limit=3_000)
    assert found.ranks.flat.tolist() == exact.flat.tolist()
    assert found.recall.mean == 1.0
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert report["index_error"]["average_precision"]["mean"] == 0.0
    for name, metric in report["through_index"].items():
        assert metric["mean"] == pytest.approx(report["exact"][name]["mean"])


def test_beyond_the_limit_nothing_is_claimed(index: EdgeIndex) -> None:
    case, distractors = made_up()
    exact = ranks(case, ArrayBlocks(distractors))
    found = through_index(case, index, exact, limit=20)
    # The collection is small enough that the engine compares every point, so by hand: the same
    # rank where fewer than 20 distractors stand before an exemplar, else none.
    place = np.concatenate([np.arange(1, count + 1) for count in case.positives])
    expected = np.where(exact.flat - place < 20, exact.flat, UNRANKED)
    assert found.ranks.flat.tolist() == expected.tolist()
    assert 0 < (expected == UNRANKED).sum() < len(expected)
    report = found.to_dict()
    assert list(report["through_index"]) == ["recall_at_5", "recall_at_10", "average_precision"]
    assert report["index_error"]["average_precision"]["mean"] == 0.0
    within = report["exact"]["average_precision_within"]["mean"]
    assert within == pytest.approx(average_precision(found.ranks).mean())
    assert within < report["exact"]["average_precision"]["mean"]


def test_an_index_that_loses_points_is_seen_apart_from_the_model(tmp_path: Path) -> None:
    # A bit a number and no second look at more than the hits: it misses many.
    random = np.random.default_rng(1)
    case = reference.random_case(random, [2] * 8, 64, 64, signal=0.2)
    distractors = ArrayBlocks(reference.features(random, 4_000, 64))
    exact = ranks(case, distractors)
    poor = EdgeSettings(quantization="binary", oversampling=1.0, index_above=1_000)
    with build_index(distractors, tmp_path / "poor", poor) as built:
        found = through_index(case, built, exact, limit=5)
    assert found.recall.mean < 0.95
    assert found.recall.low is not None
    # Lost distractors let exemplars move forward, never back.
    known = found.ranks.flat != UNRANKED
    assert (found.ranks.flat[known] <= exact.flat[known]).all()
    assert found.to_dict()["index_error"]["recall_at_5"]["mean"] >= 0


def test_progress_and_empty_cases(index: EdgeIndex) -> None:
    case, distractors = made_up()
    exact = ranks(case, ArrayBlocks(distractors))
    seen: list[tuple[int, int]] = []
    through_index(case, index, exact, limit=3, progress=lambda *at: seen.append(at))
    assert seen == [(60, 60)]
    nothing = replace(case, synth=case.synth[:0], synth_model=case.synth_model[:0], synth_type=())
    found = through_index(nothing, index, ranks(nothing, ArrayBlocks(distractors)))
    assert found.to_dict()["index_recall"]["mean"] is None


def test_calls_that_do_not_fit_are_refused(index: EdgeIndex) -> None:
    case, distractors = made_up()
    exact = ranks(case, ArrayBlocks(distractors))
    with pytest.raises(UsageError, match=r"^limit must be 1 or more, not 0$"):
        through_index(case, index, exact, limit=0)
    with pytest.raises(
        UsageError,
        match=r"^made-up: the index has 3000 points for 60 queries, ranked exactly were 2999 for "
        r"60; both must be of the same distractors and queries$",
    ):
        through_index(case, index, ranks(case, ArrayBlocks(distractors[1:])))
    narrow = replace(case, exemplars=case.exemplars[:, :3], synth=case.synth[:, :3])
    with pytest.raises(UsageError, match=r"^made-up: features of 3 numbers, the index has 24$"):
        through_index(narrow, index, exact)
