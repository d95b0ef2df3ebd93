"""Whether influence means what it says: of the influence predicted, how much is on exemplars?

For every pair of a generated image and a training image of its gallery, influence predicts the
share of the truth that the training image has: 1 / exemplars for an exemplar, 0 for any other. The
pairs are put into bins by their predicted influence. In each bin stand the mass that was predicted
(the sum of influence) and the mass that was observed (the sum of truth), per query. Both add up to
1 over all bins; where calibration is perfect they are equal in each.

The expected calibration error is half the sum of their differences: the share of the influence that
would have to move to another bin, 0..1. It is the usual error (difference of mean prediction and
observed frequency, weighted by pairs) times half the size of the gallery: weighted by pairs
themselves, the countless ones of next to no influence would hide all the others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.divergence import shares_by_part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embed.calibrator import Calibrator
    from evaluation.spectrum import Spectrum

    Floats = NDArray[np.float64]

__all__ = ["Reliability", "ReliabilityBin", "reliability"]

EDGES = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Where bins begin: bin i holds EDGES[i] < influence <= EDGES[i + 1], the last one all above."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs of like predicted influence.

    Attributes:
        low, high: low < influence <= high; both 0 for pairs without influence.
        pairs: how many.
        predicted: sum of influence, per query.
        observed: sum of the truth, per query.
        interval: of `observed`, over models.
        mean_influence: predicted mass over pairs, 0 where there are none.
        frequency: observed mass over pairs, 0 where there are none.
    """

    low: float
    high: float
    pairs: float
    predicted: float
    observed: float
    interval: tuple[float, float]
    mean_influence: float
    frequency: float


@dataclass(frozen=True)
class Reliability:
    """The calibration curve of one calibrator on some queries.

    Attributes:
        bins: by rising influence; the first holds the pairs without any.
        error: expected calibration error, 0..1.
        error_interval: of it, over models. It is biased upwards where there are few queries.
        queries, models: how many.
        confidence: of the intervals.
    """

    bins: tuple[ReliabilityBin, ...]
    error: float
    error_interval: tuple[float, float]
    queries: int
    models: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def reliability(
    spectrum: Spectrum,
    calibrator: Calibrator,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Reliability:
    """The calibration curve of influence as answers give it (relu).

    Intervals are percentiles of a bootstrap over models, since the generated images of one model
    are not independent.

    Args:
        spectrum: of the generated images.
        calibrator: tau and b.
        resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the bootstrap.
    """
    bins = len(EDGES) + 1
    names, which = np.unique(spectrum.models, return_inverse=True)
    pairs, predicted, observed = (np.zeros((len(names), bins)) for _ in range(3))
    for rows, shares, counts, own, owners in shares_by_part(spectrum, calibrator):
        models = which[rows]
        place = models[:, None] * bins + np.searchsorted(EDGES, shares)
        own_place = models[owners] * bins + np.searchsorted(EDGES, own)
        truth = 1 / spectrum.positives[rows][owners]
        _tally(pairs, place, counts)
        _tally(pairs, own_place, np.ones(len(own)))
        _tally(predicted, place, counts * shares)
        _tally(predicted, own_place, own)
        _tally(observed, own_place, truth)
    queries = np.bincount(which, minlength=len(names)).astype(np.float64)  # (models,)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), resamples
    )  # (resamples, models)
    of_each = (drawn @ queries)[:, None]
    again_observed = drawn @ observed / of_each
    again_error = np.abs(drawn @ predicted / of_each - again_observed).sum(axis=1) / 2
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(again_observed, (tail, 100 - tail), axis=0)
    error_low, error_high = np.percentile(again_error, (tail, 100 - tail))
    p, o = predicted.sum(axis=0) / queries.sum(), observed.sum(axis=0) / queries.sum()
    n = pairs.sum(axis=0)
    each = np.maximum(n, 1) / queries.sum()
    edges = (0.0, *EDGES, 1.0)
    return Reliability(
        bins=tuple(
            ReliabilityBin(
                low=edges[i],
                high=edges[i + 1],
                pairs=float(n[i]),
                predicted=float(p[i]),
                observed=float(o[i]),
                interval=(float(low[i]), float(high[i])),
                mean_influence=float(p[i] / each[i]),
                frequency=float(o[i] / each[i]),
            )
            for i in range(bins)
        ),
        error=float(np.abs(p - o).sum() / 2),
        error_interval=(float(error_low), float(error_high)),
        queries=len(spectrum),
        models=len(names),
        confidence=confidence,
    )


def _tally(table: Floats, place: NDArray[np.intp], values: NDArray[np.floating[Any]]) -> None:
    """Add values to the cells of `table` that `place` counts in one row."""
    table += np.bincount(place.ravel(), values.ravel(), table.size).reshape(table.shape)
