"""How far calibrated influence is from the truth: uniform over the exemplars, 0 on all others.

The paper fits the calibrator by the KL divergence of the two (section on soft influence scores).
It exists in two forms here, and they answer different questions:

- `kl` is the training loss. In place of relu stands a softplus with beta = 100, which leaves every
  training image a little weight, so that the divergence is finite and has a slope everywhere. With
  the logarithm of the number of exemplars added to it, it is the loss of the published code.
- At test time the threshold is a relu: the divergence of a query is infinite as soon as one
  exemplar lies below the cut-off. So what is used in answers is judged by `deployed` (how much
  influence the exemplars get, and how many get none) and by `kl_smoothed`, in which a thousandth
  of the influence is spread over the whole gallery before. It is the same for every calibrator and
  finite for each, so calibrators with and without a cut-off compare on equal terms.

A single-temperature softmax is the calibrator with b = 0 and no softplus (`kl_softmax`). The family
of `kl` does not contain it: softplus(0) is 0.0069 for each image of a gallery, however far away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.calibrator import Calibrator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evaluation.spectrum import Spectrum

    Floats = NDArray[np.float64]
    Part = tuple[slice, Floats, NDArray[np.float32], Floats, NDArray[np.int64]]

__all__ = [
    "SMOOTHING",
    "Deployed",
    "deployed",
    "kl",
    "kl_and_slope",
    "kl_smoothed",
    "kl_softmax",
    "shares_by_part",
]

SHARPNESS = 100.0
"""beta of the softplus that stands in for relu while fitting (published code)."""

SMOOTHING = 1e-3
"""Share of the influence that `kl_smoothed` spreads over the gallery."""

_LINEAR = 0.2  # above it softplus is its argument, to 2e-11
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


def kl(spectrum: Spectrum, calibrator: Calibrator) -> Floats:
    """(queries,) KL of the uniform distribution over the exemplars to influence by softplus."""
    result = np.empty(len(spectrum))
    for rows, gaps, counts, own, owners in _parts(spectrum):
        x, own_x = gaps / calibrator.tau, own / calibrator.tau
        total = np.einsum("qt,qt->q", counts, _softplus(np.exp(x) + calibrator.b))
        u = np.exp(own_x) + calibrator.b
        total += np.bincount(owners, _softplus(u), len(total))
        result[rows] = np.log(total) - _mean(_log_softplus(u), owners, len(total))
    return result - np.log(spectrum.positives)


def kl_and_slope(spectrum: Spectrum, calibrator: Calibrator) -> tuple[Floats, Floats]:
    """`kl` and its derivatives: (queries,) and (queries, 2) by ln tau and by b."""
    value = np.empty(len(spectrum))
    slope = np.empty((len(spectrum), 2))
    for rows, gaps, counts, own, owners in _parts(spectrum):
        count = len(gaps)
        x, own_x = gaps / calibrator.tau, own / calibrator.tau
        e, own_e = np.exp(x), np.exp(own_x)
        u, own_u = e + calibrator.b, own_e + calibrator.b
        rise, own_rise = _sigmoid(u), _sigmoid(own_u)  # d softplus / du
        own_w, own_log = _softplus(own_u), _log_softplus(own_u)
        total = np.einsum("qt,qt->q", counts, _softplus(u)) + np.bincount(owners, own_w, count)
        by_b = np.einsum("qt,qt->q", counts, rise) + np.bincount(owners, own_rise, count)
        own_by_tau = -own_x * own_e
        by_tau = np.einsum("qt,qt,qt,qt->q", counts, rise, -x, e)
        by_tau += np.bincount(owners, own_rise * own_by_tau, count)
        # Far below 0 both are e^(100 u): their quotient tends to 100, not to 0 / 0.
        log_rise = np.where(own_u < 0, SHARPNESS * own_u, 0) - np.log1p(
            np.exp(-np.abs(SHARPNESS * own_u))
        )
        log_slope = np.exp(log_rise - own_log)
        value[rows] = np.log(total) - _mean(own_log, owners, count)
        slope[rows, 0] = by_tau / total - _mean(log_slope * own_by_tau, owners, count)
        slope[rows, 1] = by_b / total - _mean(log_slope, owners, count)
    return value - np.log(spectrum.positives), slope


def kl_softmax(spectrum: Spectrum, tau: float) -> Floats:
    """(queries,) KL of the uniform distribution over the exemplars to softmax(similarity / tau)."""
    result = np.empty(len(spectrum))
    for rows, gaps, counts, own, owners in _parts(spectrum):
        total = np.einsum("qt,qt->q", counts, np.exp(gaps / tau))
        total += np.bincount(owners, np.exp(own / tau), len(total))
        result[rows] = np.log(total) - _mean(own / tau, owners, len(total))
    return result - np.log(spectrum.positives)


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


def _sigmoid(u: Floats) -> Any:  # noqa: ANN401
    from scipy.special import expit

    return expit(SHARPNESS * u)
