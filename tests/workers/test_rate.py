"""Images per second of late, by a clock of the test's own."""

from __future__ import annotations

import itertools

import pytest

from workers.rate import Rate


def test_the_start_up_does_not_count() -> None:
    now = 100.0
    rate = Rate(clock=lambda: now)
    assert (rate.recent, rate.average, rate.total) == (0.0, 0.0, 0)
    now = 150.0  # the model was loaded meanwhile
    rate.advance(32)
    assert (rate.recent, rate.average) == (0.0, 0.0)
    for now in (152.0, 154.0):  # noqa: B007 (the clock reads it)
        rate.advance(30)
    assert (rate.recent, rate.average, rate.total) == (15.0, 15.0, 92)


def test_only_what_was_of_late() -> None:
    now = 0.0
    rate = Rate(over_s=10.0, clock=lambda: now)
    rate.advance(1)
    for now in map(float, range(1, 21)):
        rate.advance(5 if now <= 10 else 2)
    assert rate.recent == 2.0
    assert rate.average == pytest.approx((10 * 5 + 10 * 2) / 20)
    now = 25.0  # nothing came since
    assert rate.recent == pytest.approx(5 * 2 / 10)


def test_a_rest_is_forgotten() -> None:
    times = itertools.count(0.0, 2.0)
    rate = Rate(clock=lambda: next(times))
    for _ in range(3):
        rate.advance(10)
    rate.rest()
    assert rate.recent == 0.0
    rate.advance(10)
    rate.advance(6)
    assert rate.recent == pytest.approx(6 / 4)  # one tick more when it is asked
