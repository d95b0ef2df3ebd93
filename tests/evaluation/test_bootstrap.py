"""Intervals over models: closed forms, coverage, and what too few models say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.bootstrap import Interval, mean_intervals, paired_difference
from ingest.errors import UsageError


def test_the_mean_is_over_queries_not_over_models() -> None:
    # Model 7 has three queries, model 2 one: (1 + 1 + 1 + 0) / 4.
    (interval,) = mean_intervals([[1.0], [1.0], [1.0], [0.0]], [7, 7, 7, 2])
    assert interval.mean == 0.75
    assert (interval.models, interval.queries) == (2, 4)
    # With two models only three means can be drawn, and the ends are the outermost.
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_ends_are_quantiles_of_every_possible_draw() -> None:
    # 4 models have 4^4 equally likely draws, so the exact quantiles can be written down.
    sums, queries = np.array([0.3, 2.0, 1.1, 4.0]), np.array([1, 2, 3, 5])
    values = np.repeat(sums / queries, queries)[:, None]
    (interval,) = mean_intervals(values, np.repeat(range(4), queries), resamples=200_000)
    draws = [list(draw) for draw in itertools.product(range(4), repeat=4)]
    means = [sums[draw].sum() / queries[draw].sum() for draw in draws]
    tail = stats.norm.cdf(np.sqrt(4 / 3) * stats.t.ppf(0.025, 3))
    assert interval.low == pytest.approx(np.quantile(means, tail), abs=5e-3)
    assert interval.high == pytest.approx(np.quantile(means, 1 - tail), abs=5e-3)


def test_many_models_of_one_query_give_the_textbook_interval() -> None:
    values = np.random.default_rng(0).standard_normal((2_000, 1))
    (interval,) = mean_intervals(values, np.arange(2_000))
    half = 1.96 * values.std() / np.sqrt(2_000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_queries_of_one_model_are_not_independent() -> None:
    # Ten copies of each model's only query add no knowledge.
    values = np.random.default_rng(1).standard_normal((30, 1))
    once = mean_intervals(values, np.arange(30))[0]
    tenfold = mean_intervals(np.repeat(values, 10, axis=0), np.repeat(np.arange(30), 10))[0]
    assert tenfold.low == pytest.approx(once.low)
    assert tenfold.high == pytest.approx(once.high)


def test_covers_as_promised_with_few_models() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(400):
        model_means = random.standard_normal(14)
        values = np.repeat(model_means, 5) + 0.5 * random.standard_normal(70)
        (interval,) = mean_intervals(
            values[:, None], np.repeat(np.arange(14), 5), resamples=1_000, seed=seed
        )
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 0 <= interval.high
    assert 0.925 <= covered / 400 <= 0.98


@pytest.mark.parametrize("models", [[], [3], [3, 3]])
def test_fewer_than_two_models_have_no_interval(models: list[int]) -> None:
    (interval,) = mean_intervals(np.full((len(models), 1), 0.5), models)
    assert (interval.low, interval.high) == (None, None)
    assert not interval.excludes_zero
    assert interval.models == len(set(models))
    assert interval.to_dict()["mean"] == (0.5 if models else None)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(3).random((40, 2))
    models = np.arange(40) % 7
    assert mean_intervals(values, models) == mean_intervals(values, models)
    assert mean_intervals(values, models) != mean_intervals(values, models, seed=1)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 12),
    st.integers(1, 30),
    st.floats(-3, 3),
)
def test_shifts_with_its_values_and_holds_its_mean(
    seed: int, models: int, more: int, shift: float
) -> None:
    random = np.random.default_rng(seed)
    model = np.concatenate([np.arange(models), random.integers(models, size=more)])
    values = random.random((len(model), 3))
    plain = mean_intervals(values, model, resamples=500)
    for one, moved in zip(plain, mean_intervals(values + shift, model, resamples=500), strict=True):
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.mean <= one.high
        assert moved.low == pytest.approx(one.low + shift, abs=1e-9)


def test_a_constant_has_an_interval_of_no_width() -> None:
    (interval,) = mean_intervals(np.full((12, 1), 0.1), np.arange(12) % 5)
    assert (interval.low, interval.mean, interval.high) == pytest.approx((0.1, 0.1, 0.1))


def test_pairs_tell_apart_what_the_two_intervals_alone_do_not() -> None:
    random = np.random.default_rng(5)
    model = np.repeat(np.arange(12), 6)
    hard = np.repeat(random.random(12), 6)
    a = hard[:, None]
    b = a + 0.02 + 0.01 * random.random((72, 1))
    (difference,) = paired_difference(a, b, model)
    assert difference.mean == pytest.approx((b - a).mean())
    assert difference.excludes_zero
    alone_a, alone_b = mean_intervals(a, model)[0], mean_intervals(b, model)[0]
    assert alone_a.high is not None
    assert alone_b.low is not None
    assert alone_b.low < alone_a.high
    (same,) = paired_difference(a, a, model)
    assert same == Interval(0.0, 0.0, 0.0, 12, 72)
    assert not same.excludes_zero


@pytest.mark.parametrize(("models", "told"), [(2, False), (5, False), (6, True)])
def test_too_few_models_never_tell_a_difference(models: int, told: bool) -> None:
    (interval,) = mean_intervals(np.linspace(0.5, 0.6, models)[:, None], np.arange(models))
    assert interval.low is not None
    assert interval.low > 0
    assert interval.excludes_zero is told


@pytest.mark.parametrize(("low", "told"), [(8.7e-19, False), (1e-6, True)])
def test_what_is_rounded_is_no_difference(low: float, told: bool) -> None:
    assert Interval(low, low, 0.01, 12, 72).excludes_zero is told
    assert Interval(-low, -0.01, -low, 12, 72).excludes_zero is told


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(
        UsageError,
        match=r"^values of shape \(3,\) for 3 queries; they must be \(queries, metrics\)$",
    ):
        mean_intervals([1.0, 2.0, 3.0], [0, 1, 2])
    with pytest.raises(
        UsageError, match=r"^pairs of shapes \(2, 1\) and \(1, 1\); they must be equal$"
    ):
        paired_difference([[1.0], [2.0]], [[1.0]], [0, 1])
    with pytest.raises(UsageError, match=r"^confidence lies between 0 and 1, not at 95$"):
        mean_intervals([[1.0]], [0], confidence=95)
