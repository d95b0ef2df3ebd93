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

from evaluation.bootstrap import Interval, mean_intervals
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
        observed: sum of the truth, per query, with its interval over models.
        mean_influence: predicted mass over pairs, 0 where there are none.
        frequency: observed mass over pairs, 0 where there are none.
    """

    low: float
    high: float
    pairs: float
    predicted: float
    observed: Interval
    mean_influence: float
    frequency: float


@dataclass(frozen=True)
class Reliability:
    """The calibration curve of one calibrator on some queries.

    Attributes:
        bins: by rising influence; the first holds the pairs without any.
        error: expected calibration error, 0..1; biased upwards where there are few queries.
        queries, models: how many.
    """

    bins: tuple[ReliabilityBin, ...]
    error: float
    queries: int
    models: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def reliability(spectrum: Spectrum, calibrator: Calibrator, *, seed: int = 0) -> Reliability:
    """The calibration curve of influence as answers give it (relu).

    Args:
        spectrum: of the generated images.
        calibrator: tau and b.
        seed: of the bootstrap.
    """
    bins = len(EDGES) + 1
    pairs, predicted, observed = (np.zeros((len(spectrum), bins)) for _ in range(3))
    for rows, shares, counts, own, owners in shares_by_part(spectrum, calibrator):
        place = np.arange(len(shares))[:, None] * bins + np.searchsorted(EDGES, shares)
        own_place = owners * bins + np.searchsorted(EDGES, own)
        truth = 1 / spectrum.positives[rows][owners]
        _tally(pairs[rows], place, counts)
        _tally(pairs[rows], own_place, np.ones(len(own)))
        _tally(predicted[rows], place, counts * shares)
        _tally(predicted[rows], own_place, own)
        _tally(observed[rows], own_place, truth)
    p, n = predicted.mean(axis=0), pairs.sum(axis=0)
    intervals = mean_intervals(observed, spectrum.models, seed=seed)
    each = np.maximum(n, 1) / len(spectrum)
    edges = (0.0, *EDGES, 1.0)
    return Reliability(
        bins=tuple(
            ReliabilityBin(
                low=edges[i],
                high=edges[i + 1],
                pairs=float(n[i]),
                predicted=float(p[i]),
                observed=intervals[i],
                mean_influence=float(p[i] / each[i]),
                frequency=intervals[i].mean / float(each[i]),
            )
            for i in range(bins)
        ),
        error=sum(abs(float(p[i]) - intervals[i].mean) for i in range(bins)) / 2,
        queries=len(spectrum),
        models=len(np.unique(spectrum.models)),
    )


def _tally(table: Floats, place: NDArray[np.intp], values: NDArray[np.floating[Any]]) -> None:
    """Add values to the cells of `table` that `place` counts in one row."""
    table += np.bincount(place.ravel(), values.ravel(), table.size).reshape(table.shape)
