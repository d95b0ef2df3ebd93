"""Fitting the calibrator: tau and b by the KL divergence to the uniform over the exemplars.

Two numbers, a smooth loss with its exact slope, and more than one valley: quasi-Newton (L-BFGS-B)
from the start of the published code (inv_tau 1, bias 0) and from the best points of a grid, on a
part of the queries first, then on all of them.

Two objectives (see `evaluation.divergence`):

- `published` is the paper's loss, with softplus for relu. Its optimum usually has b < 0, and so a
  cut-off: answers are sums over a support that can be fetched whole. Where exemplars are often
  missed it may have b >= 0, and `CalibratorFit.finite` is the best one below 0. b stays above -0.8:
  below, even the nearest training image lies in the bend of softplus, where it is an exponential.
  The loss has a valley there (tau 4.8, b -0.99 on weak features) in which relu, as answers have it,
  gives four images everything and most exemplars nothing.
- `exact` is the divergence of the influence that answers give, over b >= 0: a softmax with an even
  floor. It contains every softmax, so on what it was fitted on it is never worse than the best one.
  Its support is the whole collection; beyond some 20,000 images answers are estimates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import exp, inf, isfinite, log
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from embed.calibrator import BIAS_GAIN, UNFITTED, Calibrator
from evaluation.divergence import Form, deployed, kl, kl_and_slope, kl_smoothed, kl_softmax
from ingest.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evaluation.spectrum import Spectrum

__all__ = ["CalibratorFit", "Objective", "Scores", "best_softmax", "fit_calibrator", "score"]

Objective: TypeAlias = Literal["published", "exact"]

SMALLEST_TAU, LARGEST_TAU = 1e-3, 10.0
SMALLEST_B, LARGEST_B = -0.8, 1.0
LARGEST_FINITE_B = -BIAS_GAIN
"""The largest b that leaves a cut-off, one unit of the published bias below 0."""

_OFFICIAL_START = (0.0, 0.0)  # ln tau, b
_GRID_TAU = tuple(np.geomspace(0.004, 1.0, 9))
_GRID_B: dict[Form, tuple[float, ...]] = {
    "softplus": (-0.7, -0.5, -0.3, -0.15, -0.1, -0.07, -0.04, -0.01, 0.0, 0.05),
    "relu": (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1),
}
_STARTS = 4
_PART = 128
_GRID_PART = 48
_SMALLEST_FLOOR = 1e-12
_B_UNIT = 0.01  # the width over which softplus bends: in it b is as long a step as ln tau


@dataclass(frozen=True)
class Scores:
    """One calibrator on some queries; means over queries, or over models' means.

    Attributes:
        kl: the paper's loss as a divergence (softplus), in nats.
        kl_exact: the divergence of influence as answers give it (relu); infinite where an exemplar
            has none.
        kl_smoothed: the same with a thousandth of the influence spread evenly: always finite.
        mass: influence on the exemplars as answers give it, 0..1.
        exemplars_without: share of (query, exemplar) pairs with no influence.
        queries_without: share of queries none of whose exemplars has influence.
        support_median, support_p90: training images with influence above 0, over queries.
    """

    kl: float
    kl_exact: float
    kl_smoothed: float
    mass: float
    exemplars_without: float
    queries_without: float
    support_median: float
    support_p90: float

    def to_dict(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: None."""
        return {name: value if isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True)
class CalibratorFit:
    """A fitted calibrator and how good it is on what it was fitted on.

    Attributes:
        calibrator: the optimum.
        objective: what it is an optimum of.
        before: scores of the calibrator that there was before.
        after: scores of the optimum.
        softmax_tau: temperature of the best single-temperature softmax.
        softmax: scores of that softmax, as a calibrator with b = 0.
        finite: where the optimum has b >= 0, the best with b < 0 by the paper's loss; else None.
        finite_scores: its scores.
        queries, models: fitted on.
        gallery: median size of a query's gallery.
        history: (tau, b, mean kl) where each descent over all queries ended, best first.
    """

    calibrator: Calibrator
    objective: Objective
    before: Scores
    after: Scores
    softmax_tau: float
    softmax: Scores
    finite: Calibrator | None
    finite_scores: Scores | None
    queries: int
    models: int
    gallery: int
    history: tuple[tuple[float, float, float], ...]

    @property
    def kl_before(self) -> float:
        """Mean KL of the calibrator that there was before, in the form of the objective."""
        return self.before.kl if self.objective == "published" else self.before.kl_exact

    @property
    def kl_after(self) -> float:
        """Mean KL of the optimum, in the form of the objective."""
        return self.after.kl if self.objective == "published" else self.after.kl_exact

    @property
    def kl_softmax(self) -> float:
        """Mean KL of the best single-temperature softmax."""
        return self.softmax.kl_exact

    @property
    def at_bound(self) -> bool:
        """Whether tau or b ended at the edge of what is looked at: the data does not fix them."""
        tau, b = self.calibrator.tau, self.calibrator.b
        inside = SMALLEST_TAU * 1.001 < tau < LARGEST_TAU * 0.999
        return not (inside and SMALLEST_B + 1e-6 < b < LARGEST_B - 1e-6)

    @property
    def beats_softmax(self) -> bool:
        """Whether its mean KL is below that of the best single-temperature softmax."""
        return self.kl_after < self.kl_softmax

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "calibrator": asdict(self.calibrator),
            "objective": self.objective,
            "kl_before": self.kl_before if isfinite(self.kl_before) else None,
            "kl_after": self.kl_after,
            "kl_softmax": self.kl_softmax,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "softmax": {"tau": self.softmax_tau, **self.softmax.to_dict()},
            "finite": None
            if self.finite is None or self.finite_scores is None
            else {**asdict(self.finite), **self.finite_scores.to_dict()},
            "queries": self.queries,
            "models": self.models,
            "gallery": self.gallery,
            "at_bound": self.at_bound,
            "history": [
                {"tau": tau, "b": b, "kl": divergence} for tau, b, divergence in self.history
            ],
        }


def fit_calibrator(
    spectrum: Spectrum,
    fitted_on: str,
    *,
    before: Calibrator = UNFITTED,
    objective: Objective = "published",
    finite_support: bool = False,
    equal_models: bool = False,
) -> CalibratorFit:
    """The calibrator with the smallest mean KL (paper, section on soft influence scores).

    Args:
        spectrum: of the generated images to fit on.
        fitted_on: for the calibrator, what these are.
        before: the calibrator to compare with.
        objective: see the head of this file.
        finite_support: keep b below 0, so that answers need not be estimated.
        equal_models: let every model weigh the same, whatever number of queries it has.

    Raises:
        UsageError: `exact` with `finite_support`: with a cut-off it would be infinite.
    """
    if objective == "exact" and finite_support:
        raise UsageError("the exact objective has no cut-off; leave one of the two out")
    weights = _weights(spectrum, equal_models)
    top = LARGEST_FINITE_B if finite_support else LARGEST_B
    form: Form = "softplus" if objective == "published" else "relu"
    best, history = _descend(spectrum, weights, form, top)
    calibrator = replace(best, fitted_on=fitted_on)
    finite = None
    if calibrator.b >= 0:
        finite = replace(
            _descend(spectrum, weights, "softplus", LARGEST_FINITE_B)[0], fitted_on=fitted_on
        )
    tau = best_softmax(spectrum, equal_models=equal_models)
    return CalibratorFit(
        calibrator=calibrator,
        objective=objective,
        before=score(spectrum, before, equal_models=equal_models),
        after=score(spectrum, calibrator, equal_models=equal_models),
        softmax_tau=tau,
        softmax=score(spectrum, Calibrator(tau, 0.0), equal_models=equal_models),
        finite=finite,
        finite_scores=None
        if finite is None
        else score(spectrum, finite, equal_models=equal_models),
        queries=len(spectrum),
        models=len(np.unique(spectrum.models)),
        gallery=int(np.median(spectrum.gallery)),
        history=history,
    )


def score(spectrum: Spectrum, calibrator: Calibrator, *, equal_models: bool = False) -> Scores:
    """How good a calibrator is on some queries, which may be others than it was fitted on."""
    weights = _weights(spectrum, equal_models)
    given = deployed(spectrum, calibrator)
    exact = kl(spectrum, calibrator, "relu")
    without = np.bincount(spectrum.owners, given.shares == 0, len(spectrum)) / spectrum.positives
    return Scores(
        kl=float(weights @ kl(spectrum, calibrator)),
        kl_exact=float(weights @ exact) if np.isfinite(exact).all() else inf,
        kl_smoothed=float(weights @ kl_smoothed(spectrum, calibrator)),
        mass=float(weights @ given.mass),
        exemplars_without=float(weights @ without),
        queries_without=float(weights @ (given.mass == 0)),
        support_median=float(np.median(given.support)),
        support_p90=float(np.percentile(given.support, 90)),
    )


def best_softmax(spectrum: Spectrum, *, equal_models: bool = False) -> float:
    """The temperature with the smallest mean KL of softmax(similarity / tau).

    The divergence is convex in 1 / tau, so there is one minimum.
    """
    return exp(_softmax_end(spectrum, _weights(spectrum, equal_models))[1])


def _weights(spectrum: Spectrum, equal_models: bool) -> NDArray[np.float64]:
    """(queries,), summing to 1."""
    if not equal_models:
        return np.full(len(spectrum), 1 / len(spectrum))
    _, which, counts = np.unique(spectrum.models, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = 1 / (len(counts) * counts[which])
    return weights


def _descend(
    spectrum: Spectrum, weights: NDArray[np.float64], form: Form, top: float
) -> tuple[Calibrator, tuple[tuple[float, float, float], ...]]:
    """Grid on few queries, descents on some, descents from their two best ends on all."""
    few, few_weights = _part(spectrum, weights, _GRID_PART)
    part, part_weights = _part(spectrum, weights, _PART)
    grid = sorted(
        (float(few_weights @ kl(few, Calibrator(exp(start[0]), start[1]), form)), start)
        for start in _grid(form, top)
    )
    starts = [_OFFICIAL_START, *(start for _, start in _apart(grid))]
    ends = sorted(_descent(part, part_weights, start, form, top) for start in starts)
    if len(part) < len(spectrum):
        ends = sorted(_descent(spectrum, weights, end[1:], form, top) for end in ends[:2])
    if form == "relu":  # b was looked for by its logarithm, which does not reach the softmax itself
        ends.append(_softmax_end(spectrum, weights))
        ends.sort()
    history = tuple((exp(end[1]), end[2], end[0]) for end in ends)
    tau, b, _ = history[0]
    return Calibrator(tau, b), history


def _grid(form: Form, top: float) -> Iterator[tuple[float, float]]:
    for tau in _GRID_TAU:
        for b in _GRID_B[form]:
            if b <= top:
                yield log(float(tau)), b


def _apart(
    grid: list[tuple[float, tuple[float, float]]],
) -> list[tuple[float, tuple[float, float]]]:
    """The best grid points, no two neighbours: several starts in one valley would be one."""
    chosen: list[tuple[float, tuple[float, float]]] = []
    for value, (log_tau, b) in grid:
        if all(abs(log_tau - p[0]) > 0.8 or abs(b - p[1]) > 0.1 for _, p in chosen):
            chosen.append((value, (log_tau, b)))
        if len(chosen) == _STARTS:
            break
    return chosen


def _part(
    spectrum: Spectrum, weights: NDArray[np.float64], queries: int
) -> tuple[Spectrum, NDArray[np.float64]]:
    """An even choice of the queries, and their weights."""
    if len(spectrum) <= queries:
        return spectrum, weights
    chosen = np.linspace(0, len(spectrum) - 1, queries).astype(np.int64)
    some = weights[chosen]
    return spectrum.of_queries(chosen), some / some.sum()


def _descent(
    spectrum: Spectrum,
    weights: NDArray[np.float64],
    start: tuple[float, float],
    form: Form,
    top: float,
) -> tuple[float, float, float]:
    """(mean kl, ln tau, b) where a descent from (ln tau, b) ends."""
    from scipy.optimize import minimize

    def b_of(at: float) -> float:
        return at * _B_UNIT if form == "softplus" else exp(at)

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        b = b_of(float(at[1]))
        value, slope = kl_and_slope(spectrum, Calibrator(exp(at[0]), b), form)
        return float(weights @ value), (weights @ slope) * (1, _B_UNIT if form == "softplus" else b)

    if form == "softplus":
        first, bounds = min(start[1], top) / _B_UNIT, (SMALLEST_B / _B_UNIT, top / _B_UNIT)
    else:
        first = log(min(max(start[1], _SMALLEST_FLOOR), top))
        bounds = (log(_SMALLEST_FLOOR), log(top))
    found = minimize(
        loss,
        (start[0], first),
        jac=True,
        method="L-BFGS-B",
        bounds=[(log(SMALLEST_TAU), log(LARGEST_TAU)), bounds],
        options={"maxiter": 200, "ftol": 1e-13, "gtol": 1e-8},
    )
    return float(found.fun), float(found.x[0]), b_of(float(found.x[1]))


def _softmax_end(spectrum: Spectrum, weights: NDArray[np.float64]) -> tuple[float, float, float]:
    """(mean kl, ln tau, 0) of the best softmax."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_tau: float(weights @ kl_softmax(spectrum, exp(log_tau))),
        bounds=(log(SMALLEST_TAU), log(LARGEST_TAU)),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return float(found.fun), float(found.x), 0.0
