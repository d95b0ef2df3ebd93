"""How far calibrated influence is from the truth: uniform over the exemplars, 0 on all others.

The paper fits the calibrator by the KL divergence of the two (section on soft influence scores).
It exists in two forms, which answer different questions:

- `softplus` is the training loss of the paper: in place of relu stands a softplus with beta = 100,
  which leaves every training image a little weight, so that the divergence is finite and has a
  slope everywhere. With the logarithm of the number of exemplars added it is the loss of the
  published code.
- `relu` is the influence that answers give. Where b < 0 it is infinite for a query as soon as one
  exemplar lies below the cut-off. Where b >= 0 it is finite, and since b = 0 is the softmax with
  temperature tau (`kl_softmax`), its optimum over b >= 0 is never worse than the best softmax. The
  softplus family has no such guarantee: softplus(0) is 0.0069 for each image, however far away.

Calibrators with and without a cut-off compare on equal terms by `kl_smoothed` (relu, but a
thousandth of the influence is spread over the gallery before) and by `deployed`: how much influence
exemplars get in answers, and how many get none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, log
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from embed.calibrator import Calibrator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evaluation.spectrum import Spectrum

    Floats = NDArray[np.float64]
    Part = tuple[slice, Floats, NDArray[np.float32], Floats, NDArray[np.int64]]

__all__ = [
    "SHARPNESS",
    "SMOOTHING",
    "Deployed",
    "Form",
    "deployed",
    "kl",
    "kl_and_slope",
    "kl_smoothed",
    "kl_softmax",
    "shares_by_part",
]

Form: TypeAlias = Literal["softplus", "relu"]
"""softplus: as the paper fits. relu: as answers are given."""

SHARPNESS = 100.0
"""beta of the softplus that stands in for relu while fitting (published code)."""

SMOOTHING = 1e-3
"""Share of the influence that `kl_smoothed` spreads over the gallery."""

_LINEAR = 0.2  # above it softplus is its argument, to 2e-11
_STEEPEST = 600.0  # ln of a slope: at b = 0 the relu form's is beyond any number
_TERMS = 1 << 20


@dataclass(frozen=True, eq=False)
class Deployed:
    """What the calibrator of an answer (relu) gives to each query's exemplars.

    Attributes:
        mass: (queries,) influence of the exemplars together, 0..1.
        shares: (exemplars of all queries,) influence of each.
        support: (queries,) training images with influence above 0.
    """

    mass: Floats
    shares: Floats
    support: Floats


def kl(spectrum: Spectrum, calibrator: Calibrator, form: Form = "softplus") -> Floats:
    """(queries,) KL of the uniform distribution over the exemplars to influence."""
    result = np.empty(len(spectrum))
    for rows, gaps, counts, own, owners in _parts(spectrum):
        w = _weight(gaps / calibrator.tau, calibrator.b, form)
        own_w, own_log = _weight_and_log(own / calibrator.tau, calibrator.b, form)
        total = np.einsum("qt,qt->q", counts, w) + np.bincount(owners, own_w, len(gaps))
        result[rows] = np.log(total) - _mean(own_log, owners, len(total))
    return result - np.log(spectrum.positives)


def kl_softmax(spectrum: Spectrum, tau: float) -> Floats:
    """(queries,) KL of the uniform distribution over the exemplars to softmax(similarity / tau)."""
    return kl(spectrum, Calibrator(tau, 0.0), "relu")


def kl_and_slope(
    spectrum: Spectrum, calibrator: Calibrator, form: Form = "softplus"
) -> tuple[Floats, Floats]:
    """`kl` and its derivatives: (queries,) and (queries, 2) by ln tau and by b.

    The relu form needs b >= 0 here: below, it has no slope where it is infinite.
    """
    value = np.empty(len(spectrum))
    slope = np.empty((len(spectrum), 2))
    b = calibrator.b
    for rows, gaps, counts, own, owners in _parts(spectrum):
        count = len(gaps)
        x, own_x = gaps / calibrator.tau, own / calibrator.tau
        own_w, own_log = _weight_and_log(own_x, b, form)
        log_rise = _log_rise(own_x, b, form)  # of dw / db; dw / d ln tau is it times -x e^x
        rise = np.exp(_log_rise(x, b, form))
        own_rise = np.exp(log_rise)
        total = np.einsum("qt,qt->q", counts, _weight(x, b, form))
        total += np.bincount(owners, own_w, count)
        by_b = np.einsum("qt,qt->q", counts, rise) + np.bincount(owners, own_rise, count)
        by_tau = np.einsum("qt,qt->q", counts, rise * (-x * np.exp(x)))
        by_tau += np.bincount(owners, own_rise * (-own_x * np.exp(own_x)), count)
        value[rows] = np.log(total) - _mean(own_log, owners, count)
        # In logarithms: far below the bend of softplus both are nothing, and their quotient is not.
        own_by_tau = -own_x * np.exp(log_rise + own_x - own_log)
        slope[rows, 0] = by_tau / total - _mean(own_by_tau, owners, count)
        own_by_b = np.exp(np.minimum(log_rise - own_log, _STEEPEST))
        slope[rows, 1] = by_b / total - _mean(own_by_b, owners, count)
    return value - np.log(spectrum.positives), slope


def deployed(spectrum: Spectrum, calibrator: Calibrator) -> Deployed:
    """What answers with this calibrator give to the exemplars (`search.calibration.weights`)."""
    mass, support = np.empty(len(spectrum)), np.empty(len(spectrum))
    all_shares = []
    for rows, shares, counts, own, owners in shares_by_part(spectrum, calibrator):
        all_shares.append(own)
        mass[rows] = np.bincount(owners, own, len(shares))
        support[rows] = np.einsum("qt,qt->q", counts, (shares > 0).astype(np.float64))
        support[rows] += np.bincount(owners, own > 0, len(shares))
    return Deployed(mass, np.concatenate(all_shares), support)


def shares_by_part(spectrum: Spectrum, calibrator: Calibrator) -> Iterator[Part]:
    """Influence as answers give it, some queries at a time.

    Yields:
        The queries' rows; influence of one training image of each term (queries, terms) and the
        counts of the terms; influence of the exemplars (exemplars,) and the query of each, counted
        from the first of these.
    """
    for rows, gaps, counts, own, owners in _parts(spectrum):
        w = np.maximum(np.exp(gaps / calibrator.tau) + calibrator.b, 0)
        own_w = np.maximum(np.exp(own / calibrator.tau) + calibrator.b, 0)
        total = np.einsum("qt,qt->q", counts, w) + np.bincount(owners, own_w, len(gaps))
        yield rows, w / total[:, None], counts, own_w / total[owners], owners


def kl_smoothed(
    spectrum: Spectrum, calibrator: Calibrator, *, smoothing: float = SMOOTHING
) -> Floats:
    """(queries,) KL to influence by relu of which a share `smoothing` was spread evenly.

    influence' = (1 - smoothing) influence + smoothing / gallery. With b = 0 it is the softmax's.
    """
    owners = spectrum.owners
    given = deployed(spectrum, calibrator).shares
    smooth = (1 - smoothing) * given + smoothing / spectrum.gallery[owners]
    return -_mean(np.log(smooth), owners, len(spectrum)) - np.log(spectrum.positives)


def _parts(spectrum: Spectrum) -> Iterator[Part]:
    """Some queries at a time: their rows; s - m (queries, terms) and counts of distractors; s - m
    (exemplars,) and the query, counted from the first of these, of exemplars."""
    queries = max(1, _TERMS // max(1, spectrum.similarities.shape[1]))
    largest = spectrum.largest.astype(np.float64)
    for start in range(0, len(spectrum), queries):
        rows = slice(start, min(start + queries, len(spectrum)))
        first, last = spectrum.chunks[rows.start], spectrum.chunks[rows.stop]
        owners = np.repeat(np.arange(rows.stop - start), spectrum.positives[rows])
        # A term of count 0 is no similarity, and may lie above m.
        gaps = np.minimum(spectrum.similarities[rows] - largest[rows, None], 0)
        own = spectrum.exemplars[first:last] - largest[rows][owners]
        yield rows, gaps, spectrum.counts[rows], own, owners


def _mean(values: Floats, owners: NDArray[np.int64], queries: int) -> Floats:
    """(queries,) mean over each query's exemplars."""
    means: Floats = np.bincount(owners, values, queries) / np.bincount(owners, minlength=queries)
    return means


def _weight(x: Floats, b: float, form: Form) -> Floats:
    """w of similarities s with x = (s - m) / tau."""
    u = np.exp(x) + b
    return np.maximum(u, 0) if form == "relu" else _softplus(u)


def _weight_and_log(x: Floats, b: float, form: Form) -> tuple[Floats, Floats]:
    """w and its logarithm, also where w itself is too small for a number."""
    if form == "softplus":
        u = np.exp(x) + b
        return _softplus(u), _log_softplus(u)
    if b >= 0:
        return np.exp(x) + b, np.logaddexp(x, log(b) if b > 0 else -inf)
    w = _weight(x, b, form)
    with np.errstate(divide="ignore"):  # no weight: an infinite divergence
        return w, np.log(w)


def _log_rise(x: Floats, b: float, form: Form) -> Floats:
    """The logarithm of dw / db: 0 for relu above 0, of the sigmoid for softplus."""
    if form == "relu":
        return np.zeros_like(x)
    scaled = SHARPNESS * (np.exp(x) + b)
    rise: Floats = np.minimum(scaled, 0) - np.log1p(np.exp(-np.abs(scaled)))
    return rise


def _softplus(u: Floats) -> Floats:
    low = np.log1p(np.exp(SHARPNESS * np.minimum(u, _LINEAR))) / SHARPNESS
    return np.where(u > _LINEAR, u, low)


def _log_softplus(u: Floats) -> Floats:
    """Its logarithm, also where softplus itself is too small for a number."""
    scaled = SHARPNESS * u
    small = scaled < -30
    with np.errstate(divide="ignore"):  # of values that are not used
        ordinary = np.log(_softplus(u))
    result: Floats = np.where(small, scaled - np.log(SHARPNESS), ordinary)
    return result
