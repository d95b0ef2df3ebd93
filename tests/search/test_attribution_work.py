"""How much of an index an attribution reads, and what it makes of a sample of the rest."""

from __future__ import annotations

import uuid

import numpy as np
from brute_index import (
    CUT,
    DIM,
    BruteIndex,
    ask,
    attributor,
    fill,
    unit,
)

from embed.calibrator import Calibrator
from search.calibration import influence


def test_estimates_hold_the_truth_in_95_of_100_queries() -> None:
    """Over six collections, each with its own sample: all queries of one share its luck."""
    seeds = (0, 1, 2, 3, 4, 7)
    print("seeds", seeds)
    covered = {seed: _covered(seed, queries=70) for seed in seeds}
    print("share of queries covered, by seed", covered)
    assert np.mean(list(covered.values())) >= 0.95


def _covered(seed: int, queries: int) -> float:
    """Share of queries whose interval of the remaining influence holds the truth."""
    index = BruteIndex(sample_size=400)
    random = np.random.default_rng(seed)
    centres = random.normal(size=(60, DIM))
    vectors = unit(centres[random.integers(60, size=4000)] + 0.4 * random.normal(size=(4000, DIM)))
    ids = [uuid.UUID(int=seed * 4000 + i) for i in range(4000)]  # other ids, another sample
    index.upsert(ids, vectors, [{"key": str(i)} for i in range(4000)])
    noise = 0.4 * random.normal(size=(queries, DIM))
    asked = unit(centres[random.integers(60, size=queries)] + noise)
    held = []
    for calibrator in (Calibrator(0.1, 0.0), Calibrator(0.4, 0.0), Calibrator(0.1, 0.001)):
        truth = influence((asked @ vectors.T).astype(np.float64), calibrator)
        answers = attributor(index, calibrator, head=100, exact_below=10).attribute(
            asked, [""] * queries, k=5
        )
        held += [
            answer.remaining_interval[0]
            <= 1 - np.sort(shares)[-5:].sum()
            <= answer.remaining_interval[1]
            for answer, shares in zip(answers, truth, strict=True)
        ]
    return float(np.mean(held))


def test_growth_is_by_fours_and_only_for_queries_that_need_it() -> None:
    index = BruteIndex()
    vectors, _ = fill(index, 1000)
    supports = np.count_nonzero(influence((ask(40) @ vectors.T).astype(float), CUT), axis=1)
    attributor(index, CUT, first_limit=16).attribute(ask(40), [""] * 40)
    assert supports.max() > 16
    needed = 16
    expected = [16]
    while needed <= supports.max():
        needed *= 4
        expected.append(needed)
    assert index.limits == expected
    index.limits.clear()
    attributor(index, CUT, first_limit=1000).attribute(ask(40), [""] * 40)
    assert index.limits == [1000]


def test_a_support_far_too_large_is_not_searched_for() -> None:
    index = BruteIndex()
    fill(index, 2000)
    wide = attributor(
        index,
        Calibrator(0.5, -0.01),
        first_limit=8,
        support_limit=500,
        head=40,
        exact_below=10,
    )
    (answer,) = wide.attribute(ask(1), ["q"], k=5)
    assert answer.method == "estimated"
    assert index.limits[:3] == [8, 32, 40]  # not 128 and 500


def test_the_head_grows_where_it_leaves_too_much_to_the_sample() -> None:
    index = BruteIndex()
    fill(index, 2000)
    for tau, limits in ((0.02, [40]), (0.15, [40, 160])):
        index.limits.clear()
        one = attributor(index, Calibrator(tau, 0.0), head=40, exact_below=10)
        one.attribute(ask(1), ["q"], k=5)
        assert index.limits == limits
