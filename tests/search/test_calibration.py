"""Weights, cut-off, influence, and the interval of an estimated normaliser."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from embed.calibrator import Calibrator
from search.calibration import Normaliser, cutoff, influence, normaliser, weights
from search.interval import mean_interval

CALIBRATORS = [Calibrator(0.05, -0.02), Calibrator(0.1, 0.0), Calibrator(0.2, 0.01)]
SEED = 20_240_613


def test_a_single_training_image_has_all_the_influence() -> None:
    for calibrator in CALIBRATORS:
        assert influence(np.array([[0.3]]), calibrator).tolist() == [[1.0]]


def test_equal_similarities_share_equally() -> None:
    for calibrator in CALIBRATORS:
        assert_allclose(influence(np.full((2, 7), -0.4), calibrator), 1 / 7, rtol=1e-15)


def test_three_points_worked_by_hand() -> None:
    # tau = 0.1, b = -0.1: exp(0) - .1 = .9; exp(-ln 2) - .1 = .4; exp(-ln 20) - .1 < 0.
    scores = np.array([[0.8 - 0.1 * math.log(2), 0.8, 0.8 - 0.1 * math.log(20)]])
    assert_allclose(influence(scores, Calibrator(0.1, -0.1)), [[4 / 13, 9 / 13, 0]], rtol=1e-12)
    # b = 0: 1/2, 1, 1/20 of 31/20.
    assert_allclose(influence(scores, Calibrator(0.1, 0)), [[10 / 31, 20 / 31, 1 / 31]], rtol=1e-12)
    # b = 0.25: 3/4, 5/4, 3/10 of 23/10.
    assert_allclose(
        influence(scores, Calibrator(0.1, 0.25)), [[15 / 46, 25 / 46, 6 / 46]], rtol=1e-12
    )


def test_each_query_has_its_own_maximum() -> None:
    scores = np.array([[0.9, 0.8, 0.1], [0.2, 0.1, 0.0]])
    first, second = influence(scores, Calibrator(0.1, -0.01))
    assert first[2] == 0
    assert second[2] > 0


@pytest.mark.parametrize("side", [-1e-9, 1e-9])
def test_influence_ends_at_the_cutoff(side: float) -> None:
    calibrator = Calibrator(0.05, -0.02)
    edge = cutoff(0.7, calibrator)
    assert_allclose(edge, 0.7 + 0.05 * math.log(0.02), rtol=1e-15)
    assert (weights(edge + side, 0.7, calibrator) > 0) == (side > 0)


def test_without_negative_offset_nothing_is_cut_off() -> None:
    assert cutoff(0.7, Calibrator(0.05, 0.0)) == -math.inf
    assert cutoff(0.7, Calibrator(0.05, 0.5)) == -math.inf
    assert weights(-1.0, 1.0, Calibrator(0.05, 0.5)) >= 0.5


def test_weights_are_computed_in_double_precision_from_single() -> None:
    scores = np.array([0.5, 0.25], np.float32)
    assert weights(scores, np.float32(0.5), Calibrator(0.01, 0.0))[1] == math.exp(-25.0)


@given(
    scores=arrays(np.float64, st.integers(1, 12), elements=st.floats(-1, 1)),
    tau=st.floats(0.01, 2),
    b=st.floats(-0.9, 0.9),
)
def test_shares_are_a_distribution_that_follows_similarity(
    scores: NDArray[np.float64], tau: float, b: float
) -> None:
    calibrator = Calibrator(tau, b)
    shares = influence(scores[None], calibrator)[0]
    assert ((shares >= 0) & (shares <= 1)).all()
    assert abs(math.fsum(shares) - 1) < 1e-9
    order = np.argsort(scores)
    assert (np.diff(shares[order]) >= 0).all()
    assert_allclose(influence(scores[None, ::-1], calibrator)[0, ::-1], shares, atol=1e-15)


def test_a_head_of_everything_leaves_nothing_to_estimate() -> None:
    assert normaliser(np.array([1.0, 0.5]), np.array([]), 2, smallest=0) == Normaliser.known(1.5)


def test_estimate_worked_by_hand() -> None:
    # 10 images outside of the head, 4 of them drawn: mean 0.25, 1.6 + 10 * 0.25.
    found = normaliser(np.array([1.0, 0.6]), np.array([0.1, 0.2, 0.3, 0.4]), 12, smallest=0.0)
    assert_allclose(found.value, 4.1, rtol=1e-12)
    spread = math.sqrt((0.15**2 + 0.05**2) * 2 / 3)
    assert_allclose(found.standard_error, 10 * spread * math.sqrt((1 - 0.4) / 4), rtol=1e-12)
    assert 1.6 < found.low < 4.1 < found.high < 1.6 + 10 * 0.6


def test_what_is_certain_bounds_the_interval() -> None:
    found = normaliser(np.array([1.0]), np.full(5, 0.25), 1001, smallest=0.25)
    assert found.low == 1.0 + 1000 * 0.25
    assert found.value <= found.high < 1.0 + 1000 * 1.0
    nothing = normaliser(np.array([1.0, 0.5]), np.array([]), 12, smallest=0.1)
    assert (nothing.low, nothing.high) == (1.5 + 10 * 0.1, 1.5 + 10 * 0.5)


def test_interval_of_equal_values_allows_for_what_was_not_seen() -> None:
    # Chernoff: after n draws without success its chance is below 1 - (alpha / 2) ** (1 / n).
    low, high = mean_interval(np.zeros(50), 0.0, 1.0, 10**9)
    assert low == 0
    assert_allclose(high, 1 - 0.025 ** (1 / 50), rtol=1e-6)
    assert mean_interval(np.ones(50), 0.0, 1.0, 10**9)[1] == 1


def test_interval_mirrors() -> None:
    sample = np.random.default_rng(SEED).beta(0.3, 3.0, 400)
    low, high = mean_interval(sample, 0.0, 1.0, 10_000)
    other_low, other_high = mean_interval(5 - 2 * sample, 3.0, 5.0, 10_000)
    assert_allclose([other_low, other_high], [5 - 2 * high, 5 - 2 * low], rtol=1e-12)


def test_interval_closes_as_the_sample_becomes_the_population() -> None:
    values = np.random.default_rng(SEED).random(1000)
    widths = [
        high - low
        for low, high in (mean_interval(values[:n], 0.0, 1.0, 1000) for n in (100, 500, 990, 1000))
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 0


@given(
    sample=arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)),
    more=st.integers(1, 10**6),
)
def test_interval_holds_the_mean_and_stays_in_bounds(
    sample: NDArray[np.float64], more: int
) -> None:
    low, high = mean_interval(sample, 0.0, 1.0, len(sample) + more)
    assert 0 <= low <= sample.mean() + 1e-12
    assert sample.mean() - 1e-12 <= high <= 1


POPULATIONS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "even": lambda random, n: random.random(n),
    "skewed": lambda random, n: np.minimum(np.exp(random.normal(-6, 1.5, n)), 1),
    "heavy": lambda random, n: np.minimum(1e-4 / random.random(n), 1),
    "rare": lambda random, n: (random.random(n) < 5e-4).astype(np.float64),
    "two-sided": lambda random, n: random.beta(0.2, 0.3, n),
}


@pytest.mark.parametrize("shape", POPULATIONS)
@pytest.mark.parametrize("size", [200, 4000])
def test_intervals_hold_the_mean_of_any_shape_in_95_of_100_samples(shape: str, size: int) -> None:
    random = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    covered = 0
    for _ in range(200):
        values = POPULATIONS[shape](random, 20_000)
        low, high = mean_interval(values[:size], 0.0, 1.0, len(values))
        covered += low <= values.mean() <= high
    assert covered >= 190
