"""The pictures of "More ground truth" show what its tables say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.dataset_cases import scores, scores_and_ranks
from benchmarks.dataset_figures import PAGE, Point, curve_series, figures, strength_series
from benchmarks.dataset_steps import correlation
from evaluation.dataset.prompts import read_prompts
from evaluation.features import CaseFeatures

TEXT = PAGE.read_text("utf-8")


def test_tables_are_read() -> None:
    curve = curve_series(TEXT, "mAP")
    assert set(curve) == {"untuned", "benchmark", "full-60", "both together"}
    assert [point.at for point in curve["full-60"]] == [2, 4, 8, 16, 32, 48]
    assert curve["benchmark"][0] == Point(2, 0.513, 0.34, 0.68)
    assert curve_series(TEXT, "Recall@5")["untuned"] == [Point(0, 0.576, 0.42, 0.73)]
    strength = strength_series(TEXT)
    assert list(strength) == ["untuned backbone", "efficientnet-lite0-clipart"]
    assert strength["efficientnet-lite0-clipart"][2] == Point(11.9, 0.141, 0.06, 0.25, "full-120")


@pytest.mark.parametrize("name", ["dataset-curve", "dataset-strength"])
def test_pictures_are_of_the_tables_as_they_are_now(name: str) -> None:
    _, drawn = figures(TEXT)[name]
    with Image.open(PAGE.with_name(f"{name}.png")) as picture:
        assert json.loads(picture.info["attrib"]) == json.loads(drawn), (
            "draw it again: python -m benchmarks.dataset_figures"
        )
    assert f"]({name}.png)" in TEXT
    assert Path(PAGE.with_name(f"{name}.png")).stat().st_size < 100_000


def test_another_figure_in_a_table_is_another_picture() -> None:
    other = TEXT.replace("0.513 (0.34-0.68)", "0.514 (0.34-0.68)")
    assert figures(other)["dataset-curve"][1] != figures(TEXT)["dataset-curve"][1]
    assert figures(other)["dataset-strength"][1] == figures(TEXT)["dataset-strength"][1]


def test_lines_go_through_the_figures_and_whiskers_span_the_intervals() -> None:
    figure, _ = figures(TEXT)["dataset-curve"]
    for axes, metric in zip(figure.axes, ("mAP", "Recall@5"), strict=True):
        assert metric in (axes.get_title(), axes.get_title(loc="left"))
        expected = curve_series(TEXT, metric)
        for container in axes.containers:
            points = expected[str(container.get_label())]
            line, _, (bars,) = container.lines
            assert list(line.get_ydata()) == [point.mean for point in points]
            assert line.get_xdata() == pytest.approx([point.at for point in points], rel=0.1)
            ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
            assert ends == [pytest.approx([point.low, point.high]) for point in points]
            bottom, top = axes.get_ylim()
            assert all(bottom < point.low < point.high < top for point in points)


def test_the_shipped_prompts_are_24_that_a_build_takes() -> None:
    lists = read_prompts(PAGE.parents[1] / "benchmarks" / "dataset_prompts.txt", "object")
    assert len(set(lists.free)) == 24


def test_transfer_has_the_rank_of_the_first_exemplar() -> None:
    """By hand: two queries; two exemplars and one, among four distractors."""
    exemplars = np.eye(4, dtype=np.float32)[[0, 1, 2]]
    synth = np.array([[0.0, 1, 0, 0], [0, 0, 0.6, 0.8]], dtype=np.float32)
    gallery = np.array([[0, 0.6, 0.8, 0], [0.8, 0, 0, 0.6], [0, 0, 0, 1], [0, 0, 0.8, 0.6]])
    case = CaseFeatures(
        name="case",
        model_ids=("a", "b"),
        exemplars=exemplars,
        chunks=np.array([0, 2, 3]),
        synth=synth,
        synth_model=np.array([0, 1]),
        synth_type=("free", "free"),
    )
    both, first = scores_and_ranks(case, gallery.astype(np.float32), None)
    # The second: similarities 0.48, 0.48, 0.8 and 0.96 before or after the exemplar's 0.6.
    assert first.tolist() == [1, 3]
    assert np.array_equal(both, scores(case, gallery.astype(np.float32), None))
    assert both[:, 1] == pytest.approx([(1 + 2 / 6) / 2, 1 / 3])


def test_steps_and_precision_that_rise_together_are_correlated() -> None:
    steps = np.array([30, 30, 50, 50, 90, 90, 30, 90])
    rising = steps / 100 + np.array([0.01, 0.02, 0.01, 0.02, 0.01, 0.02, 0.03, 0.03])
    rho, low, high = correlation(steps, rising, 0)
    # By hand: steps have the ranks 2, 4.5 and 7, and sums of 37.5, 42 and 37.5 about the mean.
    assert rho == pytest.approx((37.5 / 42) ** 0.5)
    assert 0.7 < low <= rho <= high <= 1
    rho, low, high = correlation(steps, -rising, 0)
    assert rho == pytest.approx(-((37.5 / 42) ** 0.5))
    assert -1 <= low <= rho <= high < -0.7
