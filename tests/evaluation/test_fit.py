"""The calibrator's loss against the published form of it, and its fit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from embed.calibrator import UNFITTED, Calibrator
from evaluation.divergence import deployed, kl, kl_and_slope, kl_smoothed, kl_softmax
from evaluation.fit import (
    LARGEST_FINITE_B,
    LARGEST_TAU,
    SMALLEST_B,
    SMALLEST_TAU,
    best_softmax,
    fit_calibrator,
    score,
)
from evaluation.spectrum import Spectrum
from ingest.errors import UsageError
from search.calibration import influence

SEED = 20_260_812


def spectrum_of(
    rows: list[tuple[list[float], list[float]]], models: list[int] | None = None
) -> Spectrum:
    """From (similarities of exemplars, of distractors) of each query."""
    width = max(len(distractors) for _, distractors in rows)
    similarities = np.zeros((len(rows), width), np.float32)
    counts = np.zeros_like(similarities)
    for row, (_, distractors) in enumerate(rows):
        similarities[row, : len(distractors)] = distractors
        counts[row, : len(distractors)] = 1
    return Spectrum(
        exemplars=np.array([s for own, _ in rows for s in own], np.float32),
        chunks=np.cumsum([0, *(len(own) for own, _ in rows)]).astype(np.int64),
        similarities=similarities,
        counts=counts,
        models=np.arange(len(rows)) if models is None else np.array(models),
    )


def drawn(seed: int, queries: int, distractors: int, lead: float = 0.25) -> Spectrum:
    """1 to 3 exemplars a query, by `lead` more similar than the distractors on the average."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(queries):
        own = np.clip(rng.normal(0.4 + lead, 0.12, rng.integers(1, 4)), -1, 1)
        rows.append((own.tolist(), np.clip(rng.normal(0.4, 0.1, distractors), -1, 1).tolist()))
    return spectrum_of(rows, models=[query // 4 for query in range(queries)])


def published_loss(
    own: NDArray[np.float32], distractors: NDArray[np.float32], inv_tau: float, bias: float
) -> float:
    """The training loss of one query as the paper's code has it, in torch."""
    scores = torch.tensor(np.concatenate([own, distractors]), dtype=torch.float64)
    scaled = torch.exp((scores - scores.max()) * inv_tau)
    weights = torch.nn.functional.softplus(scaled + 0.001 * bias, beta=100)
    return float(torch.log(weights.sum()) - torch.log(weights[: len(own)]).mean())


def rows_of(spectrum: Spectrum) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    return [
        (
            spectrum.exemplars[spectrum.chunks[q] : spectrum.chunks[q + 1]],
            spectrum.similarities[q][spectrum.counts[q] > 0],
        )
        for q in range(len(spectrum))
    ]


@pytest.mark.parametrize("inv_tau", [1.0, 4.0, 20.0, 80.0])
@pytest.mark.parametrize("bias", [0.0, -20.0, -300.0, 250.0])
def test_the_loss_is_the_published_one(inv_tau: float, bias: float) -> None:
    spectrum = drawn(SEED, 9, 70)
    expected = [published_loss(*row, inv_tau, bias) for row in rows_of(spectrum)]
    calibrator = Calibrator.from_official(inv_tau, bias, "test")
    assert_allclose(
        kl(spectrum, calibrator) + np.log(spectrum.positives), expected, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("b", [-0.3, -0.02, 0.0, 0.2])
def test_influence_is_the_published_calibrators(b: float) -> None:
    spectrum = drawn(SEED + 1, 6, 40)
    given_shares = deployed(spectrum, Calibrator(0.08, b)).shares
    expected: list[float] = []
    for own, distractors in rows_of(spectrum):
        scores = torch.tensor(np.concatenate([own, distractors]), dtype=torch.float64) / 0.08
        trunc = torch.relu(torch.exp(scores - scores.max()) + b)
        expected += (trunc / trunc.sum())[: len(own)].tolist()
        definition = influence(np.concatenate([own, distractors])[None], Calibrator(0.08, b))
        assert_allclose(definition[0, : len(own)], expected[-len(own) :], atol=1e-6)
    assert_allclose(given_shares, expected, atol=1e-6)


def test_worked_by_hand() -> None:
    # tau 1, b 0.5 where softplus is its argument: 1.5 for the exemplar, e^-1 + 0.5 for two others.
    spectrum = spectrum_of([([0.5], [-0.5, -0.5])])
    total = 1.5 + 2 * (math.exp(-1) + 0.5)
    calibrator = Calibrator(1.0, 0.5)
    assert_allclose(kl(spectrum, calibrator), math.log(total / 1.5), rtol=1e-7)
    assert_allclose(kl_softmax(spectrum, 1.0), math.log((1 + 2 * math.exp(-1)) / 1), rtol=1e-7)
    assert_allclose(deployed(spectrum, calibrator).mass, 1.5 / total, rtol=1e-7)
    # Two exemplars, one below the cut-off: e^-2 - 0.2 < 0. The other one has it all.
    cut = spectrum_of([([0.5, -0.5], [-0.4])])
    found = deployed(cut, Calibrator(0.5, -0.2))
    assert found.shares.tolist() == [1, 0]
    assert found.support.tolist() == [1]
    assert_allclose(
        kl_smoothed(cut, Calibrator(0.5, -0.2), smoothing=0.3),
        -(math.log(0.7 + 0.1) + math.log(0.1)) / 2 - math.log(2),
        rtol=1e-7,
    )


def test_equal_similarities_diverge_by_the_share_of_the_exemplars() -> None:
    # Uniform over n against uniform over the exemplars: log(n / exemplars), whatever tau and b.
    spectrum = spectrum_of([([0.3, 0.3], [0.3] * 8), ([0.1], [0.1] * 8)])
    for calibrator in (UNFITTED, Calibrator(2.0, 0.4)):
        assert_allclose(kl(spectrum, calibrator), [math.log(5), math.log(9)], rtol=1e-12)
        assert_allclose(kl_softmax(spectrum, 0.1), [math.log(5), math.log(9)], rtol=1e-12)


@given(log_tau=st.floats(-6, 2), b=st.floats(0, 0.9), seed=st.integers(0, 10_000))
def test_the_slope_of_the_exact_form(log_tau: float, b: float, seed: int) -> None:
    spectrum = drawn(seed, 4, 12)
    calibrator = Calibrator(math.exp(log_tau), b)
    value, slope = kl_and_slope(spectrum, calibrator, "relu")
    assert_allclose(value, kl(spectrum, calibrator, "relu"), rtol=1e-12, atol=1e-12)
    step = 1e-6
    if b > 1e-3:  # below, the divergence bends within the step
        up, down = (
            kl(spectrum, Calibrator(calibrator.tau, b + way * step), "relu") for way in (1, -1)
        )
        assert_allclose(slope[:, 1], (up - down) / (2 * step), rtol=1e-3, atol=1e-3)
    up, down = (
        kl(spectrum, Calibrator(math.exp(log_tau + way * step), b), "relu") for way in (1, -1)
    )
    assert_allclose(slope[:, 0], (up - down) / (2 * step), rtol=1e-3, atol=1e-3)


@settings(deadline=None)  # torch's first derivative takes longer than all others
@given(
    log_tau=st.floats(-4.5, 2),
    b=st.floats(-0.95, 0.9),
    seed=st.integers(0, 10_000),
)
def test_the_slope_is_that_of_the_loss(log_tau: float, b: float, seed: int) -> None:
    spectrum = drawn(seed, 3, 12)
    value, slope = kl_and_slope(spectrum, Calibrator(math.exp(log_tau), b))
    assert_allclose(value, kl(spectrum, Calibrator(math.exp(log_tau), b)), rtol=1e-12, atol=1e-12)
    s = torch.tensor([log_tau, b], dtype=torch.float64, requires_grad=True)
    for query, (own, distractors) in enumerate(rows_of(spectrum)):
        scores = torch.tensor(np.concatenate([own, distractors]), dtype=torch.float64)
        u = torch.exp((scores - scores.max()) / torch.exp(s[0])) + s[1]
        # log softplus without underflow, far below 0: 100 u - log 100.
        logs = torch.where(
            u < -0.3,
            100 * u - math.log(100),
            torch.log(torch.nn.functional.softplus(u.clamp(min=-0.3), beta=100)),
        )
        loss = torch.logsumexp(logs, 0) - logs[: len(own)].mean()
        (expected,) = torch.autograd.grad(loss, s)
        assert_allclose(slope[query], expected.numpy(), rtol=1e-6, atol=1e-6)


def test_the_fit_finds_the_valley_that_a_fine_grid_finds() -> None:
    spectrum = drawn(SEED + 2, 40, 400)
    fit = fit_calibrator(spectrum, "made up")
    grid = min(
        float(kl(spectrum, Calibrator(tau, b)).mean())
        for tau in np.geomspace(0.02, 0.5, 30)
        for b in np.linspace(-0.3, 0.05, 36)
    )
    assert fit.kl_after <= grid + 1e-9
    assert fit.kl_after > grid - 0.01  # and the grid is fine enough to say something
    assert fit.kl_after < fit.kl_before
    assert fit.calibrator.fitted_on == "made up"
    assert fit.before == score(spectrum, UNFITTED)
    assert (fit.queries, fit.models) == (40, 10)
    _, slope = kl_and_slope(spectrum, fit.calibrator)
    assert_allclose(slope.mean(axis=0), 0, atol=1e-4)


def test_the_softmax_temperature_is_the_best() -> None:
    spectrum = drawn(SEED + 3, 30, 200)
    tau = best_softmax(spectrum)
    best = kl_softmax(spectrum, tau).mean()
    assert all(kl_softmax(spectrum, tau * f).mean() > best for f in (0.9, 0.99, 1.01, 1.1))
    fit = fit_calibrator(spectrum, "made up")
    assert_allclose(fit.kl_softmax, best, rtol=1e-9)
    assert_allclose(fit.softmax_tau, tau, rtol=1e-9)


@pytest.mark.parametrize("lead", [0.25, 0.05, -0.05])
def test_the_exact_optimum_is_never_worse_than_the_best_softmax(lead: float) -> None:
    """b = 0 is the softmax. An even floor pays where exemplars are now found, now missed."""
    spectrum = drawn(SEED + 7, 60, 500, lead=lead)
    fit = fit_calibrator(spectrum, "made up", objective="exact")
    assert fit.calibrator.b >= 0
    assert fit.kl_after <= fit.kl_softmax + 1e-9
    assert fit.kl_after == fit.after.kl_exact
    assert fit.finite is not None
    assert fit.finite == fit_calibrator(spectrum, "made up", finite_support=True).calibrator
    grid = min(
        float(kl(spectrum, Calibrator(tau, b), "relu").mean())
        for tau in np.geomspace(0.02, 0.5, 30)
        for b in [0, *np.geomspace(1e-6, 0.1, 20)]
    )
    assert fit.kl_after <= grid + 1e-9


def test_half_found_and_half_missed_pays_for_a_floor() -> None:
    spectrum = spectrum_of([([0.9], [0.1] * 99), ([0.1], [0.9] + [0.1] * 98)] * 4)
    fit = fit_calibrator(spectrum, "made up", objective="exact")
    # The nearest image has 1/2, all 99 others the other half: (ln 2 + ln 198) / 2.
    assert_allclose(fit.kl_after, (math.log(2) + math.log(198)) / 2, rtol=1e-6)
    assert_allclose(fit.after.mass, (1 / 2 + 1 / 198) / 2, rtol=1e-4)


def test_exact_with_a_cut_off_is_refused() -> None:
    line = "the exact objective has no cut-off; leave one of the two out"
    with pytest.raises(UsageError, match=f"^{line}$"):
        fit_calibrator(drawn(SEED, 2, 5), "", objective="exact", finite_support=True)


def test_an_exemplar_below_the_cut_off_makes_the_exact_divergence_infinite() -> None:
    spectrum = spectrum_of([([0.5, 0.1], [0.4]), ([0.5], [0.1])])
    assert kl(spectrum, Calibrator(0.1, -0.1), "relu").tolist() == [math.inf, 0]


def test_the_same_is_fitted_twice_and_from_a_part_of_many_queries() -> None:
    spectrum = drawn(SEED + 4, 300, 60)  # more than a first descent looks at
    first, second = (fit_calibrator(spectrum, "made up") for _ in range(2))
    assert first == second
    assert_allclose(kl_and_slope(spectrum, first.calibrator)[1].mean(axis=0), 0, atol=1e-4)


def test_models_may_weigh_the_same() -> None:
    easy, hard = ([0.9], [0.1] * 50), ([0.3], [0.35] * 25 + [0.1] * 25)
    spectrum = spectrum_of([easy] * 9 + [hard], models=[0] * 9 + [1])
    even = spectrum_of([easy, hard])
    by_model = fit_calibrator(spectrum, "made up", equal_models=True)
    assert_allclose(by_model.kl_after, fit_calibrator(even, "made up").kl_after, rtol=1e-6)
    assert by_model.kl_after > fit_calibrator(spectrum, "made up").kl_after
    assert_allclose(score(spectrum, UNFITTED, equal_models=True).kl, score(even, UNFITTED).kl)


def test_exemplars_that_are_never_found_leave_an_even_spread() -> None:
    """The optimum has b >= 0 then, and the best one with a cut-off is given beside it."""
    spectrum = drawn(SEED + 5, 40, 60, lead=-0.1)
    fit = fit_calibrator(spectrum, "made up")
    assert fit.calibrator.b >= 0
    assert fit.finite is not None
    assert fit.finite_scores is not None
    assert fit.finite.b <= LARGEST_FINITE_B
    assert fit.after.kl <= fit.finite_scores.kl
    uniform = np.log(spectrum.gallery / spectrum.positives).mean()
    assert fit.after.kl <= uniform + 0.01
    assert fit.at_bound
    cut = fit_calibrator(spectrum, "made up", finite_support=True)
    assert cut.calibrator == fit.finite
    assert cut.finite is None


DEGENERATE = {
    "all alike": [([0.5], [0.5] * 20)] * 3,
    "exemplar always far ahead": [([0.95], [0.1] * 30)] * 3,
    "exemplar always last": [([-0.5], [0.9] * 30)] * 3,
    "no distractor": [([0.4], []), ([0.1, 0.2], [])],
    "one query": [([0.5, 0.6], [0.55, 0.2])],
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("finite_support", [False, True])
def test_degenerate_similarities_end_with_sane_numbers(name: str, finite_support: bool) -> None:
    spectrum = spectrum_of(DEGENERATE[name])
    fit = fit_calibrator(spectrum, name, finite_support=finite_support)
    assert SMALLEST_TAU * 0.999 <= fit.calibrator.tau <= LARGEST_TAU * 1.001
    assert SMALLEST_B - 1e-9 <= fit.calibrator.b <= (LARGEST_FINITE_B if finite_support else 1)
    numbers = {**vars(fit.after), "softmax": fit.kl_softmax, "before": fit.kl_before}
    del numbers["kl_exact"]  # infinite by right where an exemplar is cut off
    assert np.isfinite(list(numbers.values())).all()
    assert fit.kl_after >= -1e-12
    if name == "exemplar always far ahead":
        assert fit.kl_after < 1e-3
        assert fit.after.mass > 0.999


def test_to_dict_is_plain() -> None:
    import json

    fit = fit_calibrator(drawn(SEED + 6, 8, 30), "made up")
    values = json.loads(json.dumps(fit.to_dict()))
    assert values["calibrator"]["fitted_on"] == "made up"
    assert values["after"]["kl"] == fit.kl_after
    assert values["softmax"]["kl_exact"] == values["kl_softmax"] == fit.kl_softmax
    missed = fit_calibrator(spectrum_of([([-0.5], [0.9] * 3)]), "", before=Calibrator(0.1, -0.1))
    assert missed.to_dict()["before"]["kl_exact"] is None
    assert len(values["history"]) == len(fit.history)
    kls = [end["kl"] for end in values["history"]]
    assert kls == sorted(kls)
    assert replace(fit, calibrator=Calibrator(LARGEST_TAU, -0.1)).at_bound
