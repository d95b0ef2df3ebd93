"""A confidence interval for the mean of a bounded population, from a sample without replacement.

The tail of a calibrated softmax is skewed: most weights are near 0 and a few are hundreds of times
larger, so the normal interval (mean +- 1.96 standard errors) misses the mean too often from below:
a sample that happened to catch few of the large weights also shows a small variance.

Used instead is the empirical likelihood interval for bounded variables, which may put mass on
the bounds themselves: all means of distributions P on [low, high] with
``KL(sample || P) <= ln(2 / alpha) / n``. It was chosen because it

- follows the skewness of the sample by itself, where a t interval needs a correction;
- allows for what the sample has not seen: after a sample of equal values it still is as wide as the
  Chernoff form of the Clopper-Pearson interval;
- is, for two-valued populations, exactly the Chernoff bound, hence certain, and for others has the
  radius sqrt(2 ln(2 / alpha)) = 2.7 standard errors for large n. The surplus over 1.96 matters
  here: one fixed sample serves all queries, so their errors go together, and an interval that is
  right only on average over samples would fail for most queries of an unlucky one;
- is narrower than empirical Bernstein bounds (Maurer, Pontil 2009), which have the same radius plus
  7 ln(4 / alpha) / 3 n times the range, most of their width for weights as skewed as these.

Sources: Owen, *Empirical Likelihood* (2001), section 2; Honda, Takemura (COLT 2010) for the bounded
form and its deviations; Filippi, Cappe, Garivier, *Optimism in Reinforcement Learning and
Kullback-Leibler Divergence* (Allerton 2010), algorithm 2, for the reduction to one unknown.
"""

from __future__ import annotations

from math import exp, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_interval"]

_STEPS = 60
_NEAREST = 1e-12
"""No pole is nearer to the bound than this; there the mean is the bound's to 12 digits."""
_FARTHEST = 1e6
"""Nor further away: there the divergence is below 1e-12, that of 1e12 draws."""
_TOLERANCE = 1e-3
"""Relative, on the divergence: 5e-4 of the half-width, and the wider side is taken."""


def mean_interval(
    sample: NDArray[np.float64],
    low: float,
    high: float,
    population: int,
    *,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval of the population mean; see the module for the method.

    Sampling without replacement enters as an effective size, ``-N ln(1 - n/N)`` in place of n:
    exact for the chance of missing a rare value altogether, and smaller (so, wider intervals) than
    the ``n / (1 - n/N)`` of the usual finite-population correction.

    Args:
        sample: (sample,) drawn uniformly without replacement, each between `low` and `high`.
        low: lower bound of the population.
        high: upper bound of the population.
        population: N, at least the size of the sample.
        confidence: of both sides together.

    Returns:
        Lower and upper end, ``low <= lower <= upper <= high``.
    """
    drawn = len(sample)
    if drawn == 0:
        return low, high
    mean = float(sample.mean())
    if drawn >= population or high <= low:
        return mean, mean
    effective = -population * log1p(-drawn / population)
    divergence = log(2 / (1 - confidence)) / effective
    scaled = (sample - low) / (high - low)
    upper = _largest_mean(scaled, divergence)
    lower = 1 - _largest_mean(1 - scaled, divergence)
    return low + (high - low) * max(lower, 0.0), low + (high - low) * min(upper, 1.0)


def _largest_mean(sample: NDArray[np.float64], divergence: float) -> float:
    """The largest mean of a distribution on [0, 1] within `divergence` of the sample.

    The extremal distribution gives each value x mass proportional to 1 / (v - x) with v >= 1, and
    only for v = 1 keeps some mass for the bound 1 itself. The divergence of the first kind,
    mean(ln(v - x)) + ln(mean(1 / (v - x))), falls with v: one root is to be found.
    """
    mean = float(sample.mean())
    if float(sample.min()) >= 1:
        return 1.0

    def at(pole: float) -> tuple[float, float]:
        """Divergence and mean of the extremal distribution with this pole."""
        gap = pole - sample
        inverse = float(np.mean(1 / gap))
        # sum x / (v - x) = v sum 1 / (v - x) - n
        return _mean_log(gap / pole) + log(inverse * pole), pole - 1 / inverse

    if float(sample.max()) < 1:
        at_bound, mean_at_bound = at(1.0)
        if at_bound <= divergence:
            kept = exp(at_bound - divergence)
            return kept * mean_at_bound + (1 - kept)
    # The divergence is about var / (2 distance^2): nearly straight in logarithms, so secants there.
    # Both ends as ln(v - 1): where the divergence is too large, and where too small.
    inner, outer, best = log(_NEAREST) - 1, log(_FARTHEST), 1.0
    goal = log(divergence * (1 + _TOLERANCE / 2))  # aimed a little to the wider side
    point = log(max(mean + sqrt(float(sample.var()) / (2 * divergence)) - 1, _NEAREST))
    previous: tuple[float, float] | None = None
    for _ in range(_STEPS):
        found, best_here = at(1 + exp(point))
        height = log(max(found, 1e-300))
        if found >= divergence:
            inner, best = point, best_here
            if found <= divergence * (1 + _TOLERANCE):
                break
        else:
            outer = point
        slope = -1.0
        if previous is not None and point != previous[0]:
            slope = min((height - previous[1]) / (point - previous[0]), -0.05)
        previous = (point, height)
        point += (goal - height) / slope
        if not inner < point < outer:
            point = (inner + outer) / 2
        if outer - inner < 1e-9:
            break
    return best


def _mean_log(values: NDArray[np.float64]) -> float:
    """Mean of ln over values within 1e-12 .. 1: one logarithm for eight, most of the cost."""
    whole = len(values) // 8 * 8
    products = np.multiply.reduce(values[:whole].reshape(8, -1), axis=0)
    return (float(np.log(products).sum()) + float(np.log(values[whole:]).sum())) / len(values)
