"""From similarities to influence: the calibrator's formula, its cut-off and its normaliser.

With similarities s over the training set and their maximum m (Wang, Efros, Zhu, Zhang, ICCV 2023,
section on soft influence scores): ``w = relu(exp((s - m) / tau) + b)``, influence = w / sum(w). The
normaliser Z = sum(w) is summed where the support was fetched whole, else estimated from the head
(the nearest, exactly) and a uniform sample of the rest (Mussmann, Levy, Ermon, *Fast Amortized
Inference and Learning in Log-linear Models with Randomly Perturbed Nearest Neighbor Search*, UAI
2017, on the partition function): the head carries the large terms, the sample only small ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embed.calibrator import Calibrator
from search.interval import mean_interval

__all__ = ["Normaliser", "cutoff", "influence", "normaliser", "weights"]


def weights(
    similarities: ArrayLike, largest: ArrayLike, calibrator: Calibrator
) -> NDArray[np.float64]:
    """w = relu(exp((s - m) / tau) + b), unnormalised, in float64.

    Args:
        similarities: s, cosines, any shape.
        largest: m, the largest similarity of the query to any training image; must broadcast
            against `similarities`.
        calibrator: tau and b.

    Returns:
        The shape of `similarities`; 0 .. 1 + b where s <= m.
    """
    gap = np.asarray(similarities, np.float64) - np.asarray(largest, np.float64)
    return np.maximum(np.exp(gap / calibrator.tau) + calibrator.b, 0.0)


def cutoff(largest: float, calibrator: Calibrator) -> float:
    """The similarity at and below which influence is 0: m + tau ln(-b) where b < 0, else -inf."""
    if calibrator.b >= 0:
        return -inf
    return largest + calibrator.tau * log(-calibrator.b)


def influence(similarities: NDArray[np.floating], calibrator: Calibrator) -> NDArray[np.float64]:
    """The definition, over a full matrix of scores; what everything faster is compared with.

    Args:
        similarities: (queries, training), at least one training image.
        calibrator: tau and b.

    Returns:
        (queries, training); each row sums to 1.
    """
    unnormalised = weights(similarities, similarities.max(axis=1, keepdims=True), calibrator)
    shares: NDArray[np.float64] = unnormalised / unnormalised.sum(axis=1, keepdims=True)
    return shares


@dataclass(frozen=True)
class Normaliser:
    """Z = the sum of w over the whole training set.

    Attributes:
        value: Z.
        low, high: 95 % interval of Z; both equal `value` where nothing was estimated.
        standard_error: of `value`; 0 where nothing was estimated.
    """

    value: float
    low: float
    high: float
    standard_error: float = 0.0

    @classmethod
    def known(cls, value: float) -> Normaliser:
        """One that was summed, not estimated."""
        return cls(value, value, value)


def normaliser(
    head: NDArray[np.float64],
    sample: NDArray[np.float64],
    population: int,
    *,
    smallest: float,
    confidence: float = 0.95,
) -> Normaliser:
    """Z = sum_head w + (N - |head|) / |sample| * sum_sample w (Mussmann, Levy, Ermon, UAI 2017).

    The interval is `mean_interval` of the sample, for weights known to lie between `smallest` and
    the smallest weight of the head: it needs neither a normal nor a light-tailed sample. Its lower
    end is never below what is certain: the head, plus `smallest` for each of the others.

    Args:
        head: (head,) w of the nearest training images, all of them down to some similarity.
        sample: (sample,) w of training images drawn uniformly without replacement from the others.
        population: N, training images in the collection, at least ``len(head) + len(sample)``.
        smallest: a lower bound of w over the training set, max(b, 0).
        confidence: of the interval.

    Returns:
        Z with standard error (with finite-population correction) and interval.
    """
    certain = float(head.sum())
    others = population - len(head)
    if others <= 0:
        return Normaliser.known(certain)
    largest = max(
        float(head.min()) if len(head) else 1.0, float(sample.max()) if len(sample) else smallest
    )
    low, high = mean_interval(
        sample, smallest, max(largest, smallest), others, confidence=confidence
    )
    drawn = len(sample)
    mean = float(sample.mean()) if drawn else (low + high) / 2
    spread = float(sample.std(ddof=1)) if drawn > 1 else largest - smallest
    error = others * spread * sqrt(max(0.0, 1 - drawn / others) / max(drawn, 1))
    return Normaliser(
        value=certain + others * mean,
        low=certain + others * max(min(low, mean), smallest),
        high=certain + others * max(high, mean),
        standard_error=error,
    )
