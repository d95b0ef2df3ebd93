"""Rows and summaries of an evaluation, by hand-worked ranks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import published as reference
import pytest

from evaluation.bootstrap import mean_intervals
from evaluation.features import CaseFeatures
from evaluation.protocol import ArrayBlocks, Ranks, average_precision, recall_at
from evaluation.results import (
    CURVE_AT,
    CaseResult,
    ModelResults,
    Summary,
    evaluate,
    gallery_hash,
    of_ranks,
)
from ingest.errors import UsageError


def hand() -> tuple[CaseFeatures, Ranks]:
    """Three models of 1, 2 and 3 exemplars; queries of models 0, 1, 1, 2 with made-up ranks."""
    case = CaseFeatures(
        "hand",
        ("dog", "cat", "style"),
        np.eye(6, dtype=np.float32),
        np.array([0, 1, 3, 6]),
        np.eye(6, dtype=np.float32)[[0, 1, 1, 3]],
        np.array([0, 1, 1, 2]),
        ("gpt", "gpt", "media", "media"),
    )
    return case, Ranks(np.array([1, 2, 8, 6, 50, 3, 7, 999]), np.array([0, 1, 3, 5, 8]), 2_000)


def scored() -> CaseResult:
    case, found = hand()
    return of_ranks(case, found, kind=["object", "object", "style"], gallery_id="abc")


def test_metrics_of_each_query() -> None:
    #            recall at 5, 10, 100           average precision
    expected = [
        [1, 1, 1, 1],
        [1 / 2, 1, 1, (1 / 2 + 2 / 8) / 2],
        [0, 1 / 2, 1, (1 / 6 + 2 / 50) / 2],
        [1 / 3, 2 / 3, 2 / 3, (1 / 3 + 2 / 7 + 3 / 999) / 3],
    ]
    np.testing.assert_allclose(scored().metrics, expected)


def test_summaries_are_means_over_their_queries() -> None:
    result = scored()
    assert result.overall.metrics["recall_at_5"].mean == pytest.approx((1 + 1 / 2 + 0 + 1 / 3) / 4)
    assert (result.overall.queries, result.overall.models) == (4, 3)

    def means(summaries: list[Summary], metric: str) -> dict[str, float]:
        return {summary.label: summary.metrics[metric].mean for summary in summaries}

    assert means(result.by_prompt_type, "recall_at_10") == {
        "gpt": pytest.approx(1),
        "media": pytest.approx((1 / 2 + 2 / 3) / 2),
    }
    assert means(result.by_kind, "recall_at_5") == {
        "object": pytest.approx(1.5 / 3),
        "style": pytest.approx(1 / 3),
    }
    assert list(means(result.by_exemplars, "recall_at_5").items()) == [
        ("1", pytest.approx(1)),
        ("2", pytest.approx(1 / 4)),
        ("3-4", pytest.approx(1 / 3)),
    ]
    style = result.by_kind[1].metrics["recall_at_5"]
    assert (style.models, style.low) == (1, None)


def test_intervals_are_over_models() -> None:
    result = scored()
    expected = mean_intervals(result.metrics, [0, 1, 1, 2])
    assert list(result.overall.metrics.values()) == expected


@pytest.mark.parametrize(
    ("count", "label"),
    [
        (1, "1"),
        (2, "2"),
        (3, "3-4"),
        (4, "3-4"),
        (5, "5-8"),
        (8, "5-8"),
        (9, "9-16"),
        (64, "33-64"),
    ],
)
def test_models_are_grouped_by_doubling_numbers_of_exemplars(count: int, label: str) -> None:
    case = reference.random_case(np.random.default_rng(0), [count], 1, 4)
    result = evaluate(case, ArrayBlocks(np.zeros((0, 4), np.float32)))
    assert [summary.label for summary in result.by_exemplars] == [label]


def test_groups_of_exemplars_come_in_order_of_number() -> None:
    case = reference.random_case(np.random.default_rng(1), [20, 1, 9, 3, 120], 60, 4)
    result = evaluate(case, ArrayBlocks(np.zeros((0, 4), np.float32)))
    assert [s.label for s in result.by_exemplars] == ["1", "3-4", "9-16", "17-32", "65-128"]


def test_the_curve_rises_and_passes_through_the_recalls() -> None:
    result = scored()
    assert CURVE_AT[0] == 1
    assert CURVE_AT[-1] == 1000
    means = [interval.mean for interval in result.curve.recall]
    assert means == sorted(means)
    assert means[0] == pytest.approx(1 / 4)
    assert means[-1] == pytest.approx(1)
    for k, mean in zip(result.curve.at, means, strict=True):
        assert mean == pytest.approx(recall_at(result.ranks, k).mean())


def test_evaluate_ranks_by_the_protocol() -> None:
    random = np.random.default_rng(3)
    case = reference.random_case(random, [2, 5, 1], 20, 12, signal=0.4)
    distractors = reference.features(random, 150, 12)
    result = evaluate(case, ArrayBlocks(distractors))
    precision, recall = reference.published(case, distractors, [5, 10, 100])
    np.testing.assert_allclose(result.metrics[:, :3], recall, atol=1e-9)
    np.testing.assert_allclose(result.metrics[:, 3], precision, atol=1e-9)
    assert result.ranks.distractors == 150


def test_rows_hold_everything_a_comparison_needs() -> None:
    rows = scored().table().to_pylist()
    assert rows[1] == {
        "case": "hand",
        "model": "cat",
        "kind": "object",
        "prompt_type": "gpt",
        "image": "gpt/0",
        "exemplars": 2,
        "ranks": [2, 8],
        "recall_at_5": 0.5,
        "recall_at_10": 1.0,
        "recall_at_100": 1.0,
        "average_precision": pytest.approx(0.375),
    }
    assert [row["image"] for row in rows] == ["gpt/0", "gpt/0", "media/0", "media/0"]


def test_json_is_json() -> None:
    case, found = hand()
    nothing = replace(case, synth=case.synth[:0], synth_model=case.synth_model[:0], synth_type=())
    empty = of_ranks(nothing, Ranks(found.flat[:0], found.offsets[:1], 5))
    results = ModelResults("m", (scored(), replace(empty, case="none")), base="b", tuned=True)
    content = json.loads(json.dumps(results.to_dict(), allow_nan=False))
    assert content["attribution_model"] == "m"
    first, second = content["cases"]
    assert (first["distractors"], first["gallery"]) == (2_000, "abc")
    assert first["overall"]["recall_at_10"]["mean"] == pytest.approx((1 + 1 + 0.5 + 2 / 3) / 4)
    assert second["overall"]["recall_at_10"] == {"mean": None, "low": None, "high": None}
    assert average_precision(empty.ranks).shape == (0,)


def test_a_gallery_is_known_by_its_set_of_keys() -> None:
    assert gallery_hash(["a", "bc"]) == gallery_hash(["bc", "a"])
    assert len({gallery_hash(keys) for keys in (["a", "bc"], ["ab", "c"], ["abc"], [])}) == 4


def test_names_and_kinds_must_fit() -> None:
    case, found = hand()
    with pytest.raises(UsageError, match=r"^hand: 2 kinds for 3 models$"):
        of_ranks(case, found, kind=["object", "style"])
    with pytest.raises(UsageError, match=r"^hand: 1 names for 4 generated images$"):
        of_ranks(case, found, images=["x"])
    with pytest.raises(
        UsageError, match=r"^hand: two generated images of one model have the same name$"
    ):
        of_ranks(case, found, images=["x", "y", "y", "x"])
    with pytest.raises(UsageError, match=r"^m: test case hand is there twice$"):
        ModelResults("m", (scored(), scored()))
